//! What each colour means. A colour repeats what a word says already; it never says anything alone.

use anstyle::{AnsiColor, Style};

/// All is well.
pub const GOOD: Style = AnsiColor::Green.on_default();
/// Look soon.
pub const CAUTION: Style = AnsiColor::Yellow.on_default().bold();
/// Look now.
pub const BAD: Style = AnsiColor::Red.on_default().bold();
/// Expected silence.
pub const CALM: Style = AnsiColor::Cyan.on_default();
/// What cannot be told.
pub const UNSURE: Style = AnsiColor::Magenta.on_default();
/// The word that matters.
pub const STRONG: Style = Style::new().bold();
/// What may be skipped.
pub const FAINT: Style = Style::new().dimmed();
