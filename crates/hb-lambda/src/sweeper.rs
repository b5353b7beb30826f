//! What the sweeper does each minute: hears itself, ticks, sweeps.

use hb_api::app::App;
use hb_api::sweep::Swept;

use crate::Error;

/// One run: [`App::come_by`].
///
/// # Errors
/// As the store says. The next run does what this one did not.
pub async fn run(app: &App) -> Result<Swept, Error> {
    let swept = app.come_by().await?;
    if swept.blind {
        tracing::warn!("nobody was judged: hb does not observe");
    }
    Ok(swept)
}
