//! What the sweeper does each minute: hears itself, ticks, sweeps.

use hb_api::app::App;
use hb_api::sweep::Swept;

use crate::Error;

/// One run. Late, skipped and doubled ones are harmless: what two runs decide alike is written once.
///
/// # Errors
/// As the store says. The next run does what this one did not.
pub async fn run(app: &App) -> Result<Swept, Error> {
    app.catch_up(0).await?;
    // What it finds is weighed by the tick, and logged where it is sent.
    app.send_canary().await;
    let swept = app.sweep().await?;
    if swept.blind {
        tracing::warn!("nobody was judged: hb does not observe");
    }
    Ok(swept)
}
