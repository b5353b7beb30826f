//! A small real SMTP server on loopback (RFC 5321) that behaves as told.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// What it does once it has the whole mail.
#[derive(Debug, Clone)]
pub(crate) enum AfterData {
    /// Answers this line.
    Say(String),
    /// Keeps the mail, and never says so.
    Mute,
    /// Keeps the mail, and hangs up.
    HangUp,
}

/// How it behaves.
#[derive(Clone)]
pub(crate) struct Script {
    pub(crate) greeting: String,
    /// TLS from the first byte.
    pub(crate) tls: Option<TlsAcceptor>,
    /// TLS on request.
    pub(crate) starttls: Option<TlsAcceptor>,
    /// What somebody on the way slips in behind the answer to STARTTLS.
    pub(crate) injected: String,
    /// `\0user\0password` that it takes, in base64; none: it asks for none.
    pub(crate) login: Option<String>,
    pub(crate) mail_reply: String,
    /// The answer to a recipient, by what its address contains, and for how many questions; all others are taken.
    pub(crate) recipients: Vec<(String, String, usize)>,
    pub(crate) after_data: AfterData,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            greeting: "220 mail.test ready".to_owned(),
            tls: None,
            starttls: None,
            injected: String::new(),
            login: None,
            mail_reply: "250 ok".to_owned(),
            recipients: Vec::new(),
            after_data: AfterData::Say("250 kept".to_owned()),
        }
    }
}

/// A mail as it arrived.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Mail {
    pub(crate) from: String,
    pub(crate) to: Vec<String>,
    /// With the dots unstuffed.
    pub(crate) data: String,
    pub(crate) was_encrypted: bool,
    pub(crate) was_logged_in: bool,
}

pub(crate) struct SmtpServer {
    pub(crate) address: SocketAddr,
    mails: Arc<Mutex<Vec<Mail>>>,
    heard: Arc<Mutex<Vec<String>>>,
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

impl SmtpServer {
    pub(crate) async fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (mails, heard) = (Arc::new(Mutex::default()), Arc::new(Mutex::default()));
        let (kept, all) = (Arc::clone(&mails), Arc::clone(&heard));
        let asked = Arc::new(Mutex::new(vec![0; script.recipients.len()]));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let session = Session {
                    script: script.clone(),
                    mails: Arc::clone(&kept),
                    heard: Arc::clone(&all),
                    asked: Arc::clone(&asked),
                    mail: Mail::default(),
                };
                tokio::spawn(async move { session.serve(Box::new(stream)).await });
            }
        });
        Self { address, mails, heard }
    }

    /// Every mail that it kept.
    pub(crate) fn mails(&self) -> Vec<Mail> {
        self.mails.lock().unwrap().clone()
    }

    /// Every command that it heard.
    pub(crate) fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }
}

struct Session {
    script: Script,
    mails: Arc<Mutex<Vec<Mail>>>,
    heard: Arc<Mutex<Vec<String>>>,
    asked: Arc<Mutex<Vec<usize>>>,
    mail: Mail,
}

impl Session {
    async fn serve(mut self, stream: Box<dyn Stream>) -> Option<()> {
        let mut stream: BufReader<Box<dyn Stream>> = match self.script.tls.take() {
            Some(tls) => {
                self.mail.was_encrypted = true;
                BufReader::new(Box::new(tls.accept(stream).await.ok()?))
            }
            None => BufReader::new(stream),
        };
        say(&mut stream, &self.script.greeting.clone()).await?;
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await.ok()? == 0 {
                return None;
            }
            let line = line.trim_end().to_owned();
            self.heard.lock().unwrap().push(line.clone());
            let verb = line.split([' ', ':']).next().unwrap_or_default().to_uppercase();
            match verb.as_str() {
                "EHLO" => {
                    let mut words = vec!["250-mail.test", "250-8BITMIME"];
                    if self.script.starttls.is_some() && !self.mail.was_encrypted {
                        words.push("250-STARTTLS");
                    }
                    if self.script.login.is_some() {
                        words.push("250-AUTH PLAIN LOGIN");
                    }
                    words.push("250 SIZE 10000000");
                    say(&mut stream, &words.join("\r\n")).await?;
                }
                "STARTTLS" => {
                    say(&mut stream, &format!("220 go on{}", self.script.injected)).await?;
                    let tls = self.script.starttls.clone()?;
                    stream = BufReader::new(Box::new(tls.accept(stream.into_inner()).await.ok()?));
                    self.mail.was_encrypted = true;
                }
                "AUTH" => {
                    self.mail.was_logged_in = line.strip_prefix("AUTH PLAIN ") == self.script.login.as_deref();
                    let reply = if self.mail.was_logged_in { "235 welcome" } else { "535 5.7.8 wrong" };
                    say(&mut stream, reply).await?;
                }
                "MAIL" => {
                    self.mail.from = bracketed(&line);
                    say(&mut stream, &self.script.mail_reply.clone()).await?;
                }
                "RCPT" => {
                    let reply = self.answer_recipient(&bracketed(&line));
                    say(&mut stream, &reply).await?;
                }
                "DATA" => {
                    say(&mut stream, "354 go on").await?;
                    self.take_mail(&mut stream).await?;
                }
                "QUIT" => return say(&mut stream, "221 bye").await,
                _ => say(&mut stream, "500 what").await?,
            }
        }
    }

    fn answer_recipient(&mut self, address: &str) -> String {
        let mut asked = self.asked.lock().unwrap();
        for ((part, reply, times), asked) in self.script.recipients.iter().zip(asked.iter_mut()) {
            if address.contains(part.as_str()) && *asked < *times {
                *asked += 1;
                return reply.clone();
            }
        }
        self.mail.to.push(address.to_owned());
        "250 ok".to_owned()
    }

    async fn take_mail(&mut self, stream: &mut BufReader<Box<dyn Stream>>) -> Option<()> {
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await.ok()? == 0 {
                return None;
            }
            if line == ".\r\n" {
                break;
            }
            self.mail.data.push_str(line.strip_prefix('.').unwrap_or(&line));
        }
        if matches!(&self.script.after_data, AfterData::Say(reply) if reply.starts_with(['4', '5'])) {
            let AfterData::Say(reply) = self.script.after_data.clone() else { return None };
            return say(stream, &reply).await;
        }
        self.mails.lock().unwrap().push(self.mail.clone());
        match self.script.after_data.clone() {
            AfterData::Say(reply) => say(stream, &reply).await,
            AfterData::HangUp => None,
            AfterData::Mute => {
                while matches!(stream.read(&mut [0; 64]).await, Ok(1..)) {}
                None
            }
        }
    }
}

async fn say(stream: &mut BufReader<Box<dyn Stream>>, line: &str) -> Option<()> {
    stream.write_all(format!("{line}\r\n").as_bytes()).await.ok()?;
    stream.flush().await.ok()
}

fn bracketed(line: &str) -> String {
    line.split_once('<')
        .and_then(|(_, rest)| rest.split_once('>'))
        .map(|(address, _)| address.to_owned())
        .unwrap_or_default()
}
