//! What DynamoDB says when it does not do what it was asked, and what the callers of the store are told of it.
//!
//! A caller is told the code of an error and never its message: messages repeat parts of requests, and requests carry
//! secrets of channels.

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use hb_store::StoreError;

/// It is too much at the moment, and nothing was done.
const BUSY: [&str; 8] = [
    "ProvisionedThroughputExceededException",
    "ProvisionedThroughputExceeded",
    "RequestLimitExceeded",
    "ThrottlingException",
    "ThrottlingError",
    "Throttling",
    "TooManyRequestsException",
    "SlowDown",
];
/// Somebody else is writing the same item at this instant: nothing was done, and soon it can be.
const CONTENDED: [&str; 4] = [
    "TransactionConflictException",
    "TransactionConflict",
    "TransactionInProgressException",
    "ReplicatedWriteConflictException",
];

/// True for the code of an error after which the same may be asked again at once.
pub(crate) fn is_contended(code: &str) -> bool {
    CONTENDED.contains(&code)
}

/// True for the code of an error that says that there is too much to do.
pub(crate) fn is_busy(code: &str) -> bool {
    BUSY.contains(&code)
}

/// True when the same may be asked again at once.
pub(crate) fn contends<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> bool {
    error.as_service_error().and_then(ProvideErrorMetadata::code).is_some_and(is_contended)
}

/// What the caller is told.
pub(crate) fn of<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> StoreError {
    match error {
        SdkError::ServiceError(refused) => of_code(refused.err().code().unwrap_or("no code")),
        SdkError::TimeoutError(_) => StoreError::Unavailable("DynamoDB did not answer in time".into()),
        SdkError::DispatchFailure(_) => StoreError::Unavailable("DynamoDB cannot be reached".into()),
        SdkError::ResponseError(_) => StoreError::Unavailable("DynamoDB's answer cannot be read".into()),
        SdkError::ConstructionFailure(_) | _ => {
            StoreError::Unavailable("the request to DynamoDB could not be made".into())
        }
    }
}

/// What the caller is told of an error with this code.
pub(crate) fn of_code(code: &str) -> StoreError {
    if is_busy(code) || is_contended(code) {
        return StoreError::Overloaded;
    }
    let hint = match code {
        "ResourceNotFoundException" => " (is there such a table?)",
        "AccessDeniedException" => " (the role lacks a permission)",
        _ => "",
    };
    StoreError::Unavailable(format!("DynamoDB answered {}{hint}", clean(code)))
}

/// A code that came over the network, without whatever does not belong into one.
fn clean(code: &str) -> String {
    let word: String = code.chars().filter(char::is_ascii_alphanumeric).take(64).collect();
    if word.is_empty() { "an error without a code".into() } else { word }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn throttling_and_contention_are_overload_and_all_else_is_named_by_its_code_alone() {
        for code in BUSY.iter().chain(&CONTENDED) {
            assert!(matches!(of_code(code), StoreError::Overloaded), "{code}");
        }
        let told = of_code("ValidationException: password=\"hunter2\"\n").to_string();
        assert_eq!(told, "the store is unavailable: DynamoDB answered ValidationExceptionpasswordhunter2");
        assert!(of_code("ResourceNotFoundException").to_string().ends_with("(is there such a table?)"));
        assert!(of_code("\u{202e}").to_string().ends_with("an error without a code"));
    }
}
