//! `api`: everything but the beats, and by direct invocation the first admin key.

use hb_lambda::command::Command;
use hb_lambda::function::Function;
use hb_lambda::gateway;
use lambda_runtime::{LambdaEvent, service_fn};
use serde_json::Value;

/// What the sweeper saw may be this old in an answer, in milliseconds.
const OBSERVATION_AGE_MAX_MS: u64 = 5_000;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), hb_lambda::Error> {
    let function = Function::start().await?;
    let app = function.sending()?;
    let router = hb_api::http::management(std::sync::Arc::clone(&app)).merge(function.answering());
    let (app, router) = (&app, &router);
    lambda_runtime::run(service_fn(|event: LambdaEvent<Value>| async move {
        if event.payload.get("hb").is_some() {
            let command: Command = serde_json::from_value(event.payload)?;
            return Ok::<Value, hb_lambda::Error>(serde_json::to_value(command.run(app).await?)?);
        }
        let request =
            serde_json::from_value(event.payload).map_err(|_| "this is neither a request nor a command of hb's")?;
        if let Err(error) = app.catch_up(OBSERVATION_AGE_MAX_MS).await {
            tracing::warn!("what the sweeper saw could not be read: {error}");
        }
        Ok(serde_json::to_value(gateway::answer(router, request).await?)?)
    }))
    .await
}
