//! `ingest`: takes beats, and does nothing else.

use hb_lambda::function::Function;
use hb_lambda::gateway::{self, Event};
use lambda_runtime::{LambdaEvent, service_fn};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), hb_lambda::Error> {
    let function = Function::start().await?;
    let router = hb_api::http::ingest(function.quiet());
    lambda_runtime::run(service_fn(|event: LambdaEvent<Event>| gateway::answer(&router, event.payload))).await
}
