//! What the sweeper does each minute: looks how the other region does, hears itself, ticks, sweeps.

use core::time::Duration;
use std::sync::Arc;

use hb_api::app::App;
use hb_api::sweep::Swept;
use hb_store_dynamodb::DynamoStore;

use crate::Error;
use crate::neighbour::Neighbour;

/// What the other region wrote at once arrives one by one: what does not belong together after this long is to be mended.
pub const SETTLE: Duration = Duration::from_secs(3);

/// Whoever judges hosts in this region.
#[derive(Debug)]
pub struct Sweeper {
    /// The application.
    pub app: Arc<App>,
    /// Its table.
    pub store: Arc<DynamoStore>,
    /// The other region, where there are two.
    pub neighbour: Option<Neighbour>,
    /// [`SETTLE`]; nothing for whoever has waited already.
    pub settle: Duration,
}

impl Sweeper {
    /// One run: [`App::come_by`], after a look at the other region.
    ///
    /// # Errors
    /// As the store says. The next run does what this one did not.
    pub async fn run(&self) -> Result<Swept, Error> {
        if let Some(neighbour) = &self.neighbour {
            Box::pin(neighbour.look(&self.app, &self.store)).await?;
        }
        let swept = Box::pin(self.app.come_by()).await?;
        if swept.blind {
            tracing::warn!("nobody was judged: hb does not observe");
        }
        Ok(swept)
    }
}
