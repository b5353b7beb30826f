//! The functions, as they run: real binaries under the Lambda runtime emulator, over DynamoDB, SNS and SQS on loopback.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, and prints what it measured; its helpers included"
)]

mod alerts;
mod cloud;
mod cost;
mod fleet;
mod floods;
mod http;
mod regions;
mod topic;
