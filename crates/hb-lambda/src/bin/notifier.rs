//! `notifier`: tells people, woken by the table's stream and by a schedule.

use hb_lambda::function::Function;
use hb_lambda::stream;
use lambda_runtime::{LambdaEvent, service_fn};
use serde_json::Value;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), hb_lambda::Error> {
    let function = Function::start().await?;
    let sweeper = function.sweeper(true)?;
    let sweeper = &sweeper;
    lambda_runtime::run(service_fn(|event: LambdaEvent<Value>| stream::run(sweeper, event.payload))).await
}
