//! `sweeper`: each minute, looks for hosts that have fallen silent.

use hb_lambda::function::Function;
use lambda_runtime::{LambdaEvent, service_fn};
use serde_json::{Value, json};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), hb_lambda::Error> {
    let function = Function::start().await?;
    let sweeper = function.sweeper(false)?;
    let sweeper = &sweeper;
    lambda_runtime::run(service_fn(|_: LambdaEvent<Value>| async move {
        let swept = sweeper.run().await?;
        Ok::<Value, hb_lambda::Error>(json!({ "decided": swept.decided, "blind": swept.blind }))
    }))
    .await
}
