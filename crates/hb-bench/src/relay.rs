//! The way between the agent and the server, which can be told to hang up after each answer: the next beat then needs a new
//! connection, as behind a proxy that keeps none.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// After how long without a byte an answer is over.
const QUIET: Duration = Duration::from_millis(200);
/// No flight of a handshake, and no beat, is longer.
const CHUNK_BYTES: usize = 16 * 1024;

/// A relay on a port of its own.
pub(crate) struct Relay {
    listener: TcpListener,
    /// Whether it hangs up.
    pub(crate) hangs_up: Arc<AtomicBool>,
}

impl Relay {
    pub(crate) async fn bind() -> Result<Self> {
        Ok(Self { listener: TcpListener::bind("127.0.0.1:0").await?, hangs_up: Arc::new(AtomicBool::new(false)) })
    }

    /// What the server is called through it.
    pub(crate) fn url(&self) -> Result<String> {
        Ok(format!("https://{}", self.listener.local_addr()?))
    }

    /// Hands everything on to the server at `to`, a host and port, and back.
    pub(crate) async fn run(self, to: String) -> Result<()> {
        loop {
            let (near, _) = self.listener.accept().await?;
            let far = TcpStream::connect(&to).await?;
            tokio::spawn(carry(near, far, Arc::clone(&self.hangs_up)));
        }
    }
}

/// Carries bytes until one side ends, or until both have been quiet for long enough.
async fn carry(mut near: TcpStream, mut far: TcpStream, hangs_up: Arc<AtomicBool>) -> std::io::Result<()> {
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let (mut asked, mut answered) = (vec![0; CHUNK_BYTES], vec![0; CHUNK_BYTES]);
    loop {
        tokio::select! {
            read = near.read(&mut asked) => match read? {
                0 => return Ok(()),
                bytes => far.write_all(&asked[..bytes]).await?,
            },
            read = far.read(&mut answered) => match read? {
                0 => return Ok(()),
                bytes => near.write_all(&answered[..bytes]).await?,
            },
            () = tokio::time::sleep(QUIET) => if hangs_up.load(Ordering::Relaxed) { return Ok(()) },
        }
    }
}
