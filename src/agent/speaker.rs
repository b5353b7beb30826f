//! What the agent says in its log: each kind of failure once, then once an hour while it lasts, and its end. Pure: the time
//! is an argument, and the sentence is the result.

use hb_wire::beat::Fault;

use super::beater::Said;
use super::log::Level;

/// How often a trouble that lasts is said again, in milliseconds.
const AGAIN_MS: u64 = 3_600_000;
/// Kinds of trouble that are told apart while one lasts: a network that fails in ever new ways must not fill the log.
const KINDS_MAX: usize = 8;

/// Decides what is worth saying.
#[derive(Debug, Default)]
pub struct Speaker {
    /// The trouble that lasts.
    trouble: Option<Lasting>,
    faults: Vec<Fault>,
    marks: Vec<String>,
    ever_stored: bool,
    clock_is_off: bool,
}

#[derive(Debug)]
struct Lasting {
    since_ms: u64,
    /// What was said of it, by its word, and when last: first the name does not resolve, then a portal answers.
    said: Vec<(String, u64)>,
}

/// A sentence.
pub type Sentence = (Level, String);

impl Speaker {
    /// The sentences about one attempt; `place` is where it went, `failed` how many attempts failed in a row.
    pub fn about(&mut self, said: &Said, place: &str, failed: u64, now_ms: u64) -> Vec<Sentence> {
        match said {
            Said::Stale => Vec::new(),
            Said::Stored { marks, trusted } => self.stored(marks, *trusted, place, now_ms),
            Said::Refused { why, hint } => self.lasting("refused", now_ms, || {
                let what = format!("{place} refuses this host: {why}; asking again every few minutes (hint: {hint})");
                (Level::Error, what)
            }),
            Said::Busy { why, .. } => self.lasting("busy", now_ms, || {
                (Level::Warn, format!("{place} did not take the beat: {why}; it is tried again"))
            }),
            Said::Failed(trouble) => self.lasting(&trouble.word(), now_ms, || {
                let word = trouble.word();
                let hint = trouble.hint();
                let times = if failed > 1 { format!(", {failed} attempts so far") } else { String::new() };
                (Level::Warn, format!("a beat could not be sent ({word}{times}): {trouble} (hint: {hint})"))
            }),
        }
    }

    /// The sentence about what keeps the host from working, when that changed.
    pub fn about_faults(&mut self, faults: &[Fault], why: Option<String>, state_dir: &str) -> Option<Sentence> {
        if self.faults == faults {
            return None;
        }
        self.faults = faults.to_vec();
        let why = why.map(|why| format!(": {why}")).unwrap_or_default();
        let words: Vec<&str> = faults
            .iter()
            .map(|fault| match fault {
                Fault::StateUnwritable => "the state directory cannot be written",
                Fault::DiskFull => "the disk is full",
                Fault::RootReadOnly => "the root file system is read-only",
            })
            .collect();
        Some(if words.is_empty() {
            (Level::Info, format!("{state_dir} can be written again"))
        } else {
            (Level::Error, format!("this host is degraded: {} ({state_dir}{why})", words.join(", ")))
        })
    }

    fn stored(&mut self, marks: &[String], trusted: bool, place: &str, now_ms: u64) -> Vec<Sentence> {
        let mut sentences = Vec::new();
        match self.trouble.take() {
            Some(trouble) => {
                let lasted_s = now_ms.saturating_sub(trouble.since_ms) / 1000;
                sentences.push((Level::Info, format!("beats are stored by {place} again, after {lasted_s} s")));
            }
            None if !self.ever_stored => sentences.push((Level::Info, format!("the first beat is stored by {place}"))),
            None => {}
        }
        self.ever_stored = true;
        if self.clock_is_off == trusted {
            self.clock_is_off = !trusted;
            sentences.push(if trusted {
                (Level::Info, "this machine's clock fits the server's certificate again".to_owned())
            } else {
                let what = "this machine's clock is wrong: the server's certificate is good only by the server's own time; set the clock";
                (Level::Warn, what.to_owned())
            });
        }
        if trusted && self.marks != marks {
            let word = if marks.is_empty() { "nothing".to_owned() } else { marks.join(", ") };
            let shown: String = word.chars().filter(|char| !char.is_control()).take(200).collect();
            let level = if marks.iter().any(|mark| mark == "cloned") { Level::Error } else { Level::Info };
            sentences.push((level, format!("{place} marks this host: {shown}")));
            self.marks = marks.to_vec();
        }
        sentences
    }

    fn lasting(&mut self, kind: &str, now_ms: u64, sentence: impl FnOnce() -> Sentence) -> Vec<Sentence> {
        let trouble = self.trouble.get_or_insert_with(|| Lasting { since_ms: now_ms, said: Vec::new() });
        let is_full = trouble.said.len() >= KINDS_MAX;
        match trouble.said.iter_mut().find(|(said, _)| said == kind) {
            Some((_, said_ms)) if now_ms.saturating_sub(*said_ms) < AGAIN_MS => return Vec::new(),
            Some((_, said_ms)) => *said_ms = now_ms,
            None if is_full => return Vec::new(),
            None => trouble.said.push((kind.to_owned(), now_ms)),
        }
        vec![sentence()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::trouble::{Kind, Trouble};

    const STORED: Said = Said::Stored { marks: Vec::new(), trusted: true };

    fn failed() -> Said {
        Said::Failed(Trouble::new(Kind::Timeout, "no answer"))
    }

    #[test]
    fn a_failure_is_said_once_then_once_an_hour_and_its_end() {
        let mut speaker = Speaker::default();
        assert_eq!(speaker.about(&STORED, "h", 0, 0).len(), 1, "the first beat");
        assert!(speaker.about(&STORED, "h", 0, 60_000).is_empty());
        let mut said = 0;
        for attempt in 0..720 {
            said += speaker.about(&failed(), "h", attempt, 100_000 + attempt * 15_000).len();
        }
        assert_eq!(said, 3, "three hours of failure");
        let end = speaker.about(&STORED, "h", 0, 100_000 + 10_800_000);
        assert_eq!(end, [(Level::Info, "beats are stored by h again, after 10800 s".to_owned())]);
    }

    #[test]
    fn a_trouble_that_turns_into_another_is_said_anew_and_never_without_end() {
        let mut speaker = Speaker::default();
        let because = |kind| Said::Failed(Trouble::new(kind, "x"));
        let first = speaker.about(&because(Kind::Connect), "h", 1, 0);
        let second = speaker.about(&because(Kind::NotOurs), "h", 2, 1000);
        assert!(first[0].1.contains("(connect)") && second[0].1.contains("(not_ours, 2 attempts"), "{second:?}");
        for kind in [Kind::Connect, Kind::NotOurs] {
            assert!(speaker.about(&because(kind), "h", 3, 2000).is_empty(), "to and fro is no news: {kind:?}");
        }
        let said: usize =
            (400..500).map(|status| speaker.about(&because(Kind::Http(status)), "h", 4, 3000).len()).sum();
        assert_eq!(said, KINDS_MAX - 2);
        let end = speaker.about(&STORED, "h", 0, 60_000);
        assert_eq!(end[0].1, "beats are stored by h again, after 60 s");
        assert_eq!(speaker.about(&because(Kind::Connect), "h", 1, 61_000).len(), 1, "a new trouble");
    }

    #[test]
    fn a_refusal_is_an_error_that_says_what_to_do_once_an_hour() {
        let mut speaker = Speaker::default();
        let refused = Said::Refused { why: "401 (bad_signature)".to_owned(), hint: "hb register --force" };
        let first = speaker.about(&refused, "h", 1, 0);
        assert!(first[0].0 == Level::Error && first[0].1.contains("hb register --force"), "{first:?}");
        assert!(speaker.about(&refused, "h", 2, AGAIN_MS - 1).is_empty());
        assert_eq!(speaker.about(&refused, "h", 3, AGAIN_MS).len(), 1);
        assert_eq!(speaker.about(&failed(), "h", 4, AGAIN_MS + 1).len(), 1, "another trouble is news");
    }

    #[test]
    fn marks_faults_and_a_wrong_clock_are_said_when_they_change() {
        let mut speaker = Speaker::default();
        speaker.about(&STORED, "h", 0, 0);
        let cloned = Said::Stored { marks: vec!["cloned".to_owned()], trusted: true };
        assert_eq!(speaker.about(&cloned, "h", 0, 1)[0].0, Level::Error);
        assert!(speaker.about(&cloned, "h", 0, 2).is_empty());
        let off = Said::Stored { marks: Vec::new(), trusted: false };
        assert!(speaker.about(&off, "h", 0, 3)[0].1.contains("clock is wrong"));
        assert!(speaker.about(&off, "h", 0, 4).is_empty());
        assert!(speaker.about(&cloned, "h", 0, 5)[0].1.contains("fits"));
        let full = speaker.about_faults(&[Fault::DiskFull], Some("no space".to_owned()), "/s").unwrap();
        assert_eq!(full, (Level::Error, "this host is degraded: the disk is full (/s: no space)".to_owned()));
        assert_eq!(speaker.about_faults(&[Fault::DiskFull], None, "/s"), None);
        assert_eq!(speaker.about_faults(&[], None, "/s").unwrap().0, Level::Info);
    }
}
