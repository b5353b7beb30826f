//! The word that everything should come to its end, said once and heard everywhere.

use tokio::sync::watch;

/// Hears whether the server stops.
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<bool>);

/// Says that the server stops. Dropping it says so as well: whoever spoke for the server is gone.
#[derive(Debug)]
pub struct Stopper(watch::Sender<bool>);

/// Nothing stops yet.
#[must_use]
pub fn pair() -> (Stopper, Stop) {
    let (sender, receiver) = watch::channel(false);
    (Stopper(sender), Stop(receiver))
}

impl Stopper {
    /// Stop.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Stop {
    /// Returns when the server stops.
    pub async fn told(&mut self) {
        // The error says that nobody is left to say it.
        let _ = self.0.wait_for(|stop| *stop).await;
    }

    /// True once the server stops.
    #[must_use]
    pub fn is_told(&self) -> bool {
        *self.0.borrow()
    }
}
