//! A desk between the store and DynamoDB that a test sits at: it lets requests through, answers them itself, or loses answers.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// What becomes of a request.
#[derive(Debug, Clone)]
pub(crate) enum Ruling {
    /// It goes on to DynamoDB, and the answer comes back.
    Pass,
    /// It waits here until the gate opens, and then passes.
    Hold(Arc<Gate>),
    /// It goes on to DynamoDB, but the answer is lost.
    LoseAnswer,
    /// It does not arrive.
    Lose,
    /// This is the answer.
    Answer(u16, String),
}

/// Where a request waits for what others do meanwhile.
#[derive(Debug)]
pub(crate) struct Gate {
    arrived: Semaphore,
    open: Semaphore,
}

impl Gate {
    pub(crate) fn closed() -> Arc<Self> {
        Arc::new(Self { arrived: Semaphore::new(0), open: Semaphore::new(0) })
    }

    /// Waits until a request waits.
    pub(crate) async fn arrived(&self) {
        self.arrived.acquire().await.unwrap().forget();
    }

    /// Lets one request pass.
    pub(crate) fn open(&self) {
        self.open.add_permits(1);
    }
}

/// An error as DynamoDB words it.
pub(crate) fn error(code: &str, message: &str) -> Ruling {
    let body = serde_json::json!({"__type": format!("com.amazonaws.dynamodb.v20120810#{code}"), "message": message});
    Ruling::Answer(400, body.to_string())
}

/// A transaction that was cancelled, with these reasons.
pub(crate) fn cancelled(reasons: &[&str]) -> Ruling {
    let reasons: Vec<_> = reasons.iter().map(|code| serde_json::json!({"Code": code, "Message": "hunter2"})).collect();
    let body = serde_json::json!({
        "__type": "com.amazonaws.dynamodb.v20120810#TransactionCanceledException",
        "Message": "hunter2",
        "CancellationReasons": reasons,
    });
    Ruling::Answer(400, body.to_string())
}

/// Opens a desk in front of this address: `rule` is given the operation and the body of each request. The address of the
/// desk is the answer; it is open for as long as the test runs.
pub(crate) async fn open(behind: &str, rule: impl Fn(&str, &str) -> Ruling + Send + Sync + 'static) -> String {
    let behind: SocketAddr = behind.trim_start_matches("http://").parse().unwrap();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let rule = Arc::new(rule);
    tokio::spawn(async move {
        while let Ok((visitor, _)) = listener.accept().await {
            let rule = Arc::clone(&rule);
            // A visitor who hangs up is no failure of the test.
            tokio::spawn(async move { serve(visitor, behind, &*rule).await.ok() });
        }
    });
    address
}

async fn serve(
    visitor: TcpStream,
    behind: SocketAddr,
    rule: &(impl Fn(&str, &str) -> Ruling + Send + Sync),
) -> std::io::Result<()> {
    let mut visitor = BufReader::new(visitor);
    while let Some((head, body)) = message(&mut visitor).await? {
        let target = head.lines().find(|line| line.to_ascii_lowercase().starts_with("x-amz-target:"));
        let operation = target.and_then(|line| line.rsplit('.').next()).unwrap_or_default().trim().to_owned();
        let ruling = rule(&operation, &String::from_utf8_lossy(&body));
        if let Ruling::Hold(gate) = &ruling {
            gate.arrived.add_permits(1);
            gate.open.acquire().await.unwrap().forget();
        }
        match ruling {
            Ruling::Lose => return Ok(()),
            Ruling::Answer(status, text) => {
                let head = format!(
                    "HTTP/1.1 {status} X\r\ncontent-type: application/x-amz-json-1.0\r\ncontent-length: {}\r\n\r\n",
                    text.len()
                );
                visitor.write_all(head.as_bytes()).await?;
                visitor.write_all(text.as_bytes()).await?;
            }
            Ruling::Pass | Ruling::Hold(_) | Ruling::LoseAnswer => {
                let mut server = BufReader::new(TcpStream::connect(behind).await?);
                server.write_all(head.as_bytes()).await?;
                server.write_all(&body).await?;
                let Some((head, body)) = message(&mut server).await? else { return Ok(()) };
                if matches!(ruling, Ruling::LoseAnswer) {
                    return Ok(());
                }
                visitor.write_all(head.as_bytes()).await?;
                visitor.write_all(&body).await?;
            }
        }
        visitor.flush().await?;
    }
    Ok(())
}

/// One message of HTTP/1.1 with a length: its head, and its body.
async fn message(from: &mut BufReader<TcpStream>) -> std::io::Result<Option<(String, Vec<u8>)>> {
    let mut head = String::new();
    loop {
        if from.read_line(&mut head).await? == 0 {
            return Ok(None);
        }
        if head.ends_with("\r\n\r\n") {
            break;
        }
    }
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    let mut body = vec![0; length.unwrap_or(0)];
    from.read_exact(&mut body).await?;
    Ok(Some((head, body)))
}
