//! The terminal or pipe that receives the output.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};

use indicatif::TermLike;

/// The properties of the three streams.
#[derive(Clone, Copy, Debug)]
pub struct Terminal {
    /// True if the stream is a terminal.
    pub input: bool,
    pub out: bool,
    pub err: bool,
    /// The width of output for people, in columns.
    pub width: usize,
    /// The height of the screen, in lines.
    pub height: usize,
    /// True if output, or errors and progress, have colors.
    pub color_out: bool,
    pub color_err: bool,
}

/// When output has colors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Color {
    /// On terminals, unless `NO_COLOR`, `CLICOLOR`, `CLICOLOR_FORCE` or `TERM` say otherwise.
    #[default]
    Auto,
    Always,
    Never,
}

impl Terminal {
    /// The process's own streams.
    pub fn stdio(color: Color) -> Self {
        let env = |name: &str| std::env::var_os(name);
        let (out, err) = (io::stdout().is_terminal(), io::stderr().is_terminal());
        let (width, height) = size(env, out || err);
        Self {
            input: io::stdin().is_terminal(),
            out,
            err,
            width,
            height,
            color_out: color.applies(out, env),
            color_err: color.applies(err, env),
        }
    }

    /// No stream is a terminal.
    pub fn none() -> Self {
        Self { input: false, out: false, err: false, width: 120, height: 24, color_out: false, color_err: false }
    }
}

impl Color {
    /// See <https://no-color.org> and <https://bixense.com/clicolors>.
    fn applies(self, terminal: bool, env: impl Fn(&str) -> Option<OsString>) -> bool {
        let set = |name: &str| env(name).is_some_and(|v| !v.is_empty());
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto if set("NO_COLOR") => false,
            Self::Auto if set("CLICOLOR_FORCE") && env("CLICOLOR_FORCE").is_some_and(|v| v != "0") => true,
            Self::Auto => {
                terminal && env("TERM").is_none_or(|t| t != "dumb") && env("CLICOLOR").is_none_or(|v| v != "0")
            }
        }
    }
}

/// Columns and lines: from the environment, else values that fit every terminal. Lines may be longer if there is no
/// terminal.
fn size(env: impl Fn(&str) -> Option<OsString>, terminal: bool) -> (usize, usize) {
    let number = |name: &str| env(name)?.to_str()?.parse().ok().filter(|n| *n > 0);
    let (lines, columns) = terminal.then(|| console::Term::stderr().size_checked()).flatten().unzip();
    let width = number("COLUMNS").or(columns.map(usize::from)).unwrap_or(if terminal { 80 } else { 120 });
    (width.clamp(40, 400), number("LINES").or(lines.map(usize::from)).unwrap_or(24))
}

/// A terminal behind another writer than the process's own.
#[derive(Clone)]
pub(super) struct Screen {
    pub err: Arc<Mutex<Box<dyn Write + Send>>>,
    pub width: usize,
    pub height: usize,
}

impl Screen {
    fn put(&self, text: &str) -> io::Result<()> {
        self.err.lock().unwrap_or_else(PoisonError::into_inner).write_all(text.as_bytes())
    }

    fn moved(&self, n: usize, to: char) -> io::Result<()> {
        match n {
            0 => Ok(()),
            n => self.put(&format!("\u{1b}[{n}{to}")),
        }
    }
}

impl std::fmt::Debug for Screen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Screen {}x{}", self.width, self.height)
    }
}

impl TermLike for Screen {
    fn width(&self) -> u16 {
        self.width.try_into().unwrap_or(u16::MAX)
    }

    fn height(&self) -> u16 {
        self.height.try_into().unwrap_or(u16::MAX)
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        self.moved(n, 'A')
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        self.moved(n, 'B')
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        self.moved(n, 'C')
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        self.moved(n, 'D')
    }

    fn write_line(&self, s: &str) -> io::Result<()> {
        self.put(s)?;
        self.put("\n")
    }

    fn write_str(&self, s: &str) -> io::Result<()> {
        self.put(s)
    }

    fn clear_line(&self) -> io::Result<()> {
        self.put("\r\u{1b}[2K")
    }

    fn flush(&self) -> io::Result<()> {
        self.err.lock().unwrap_or_else(PoisonError::into_inner).flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_follow_the_conventions() {
        let env = |pairs: &'static [(&'static str, &'static str)]| {
            move |name: &str| pairs.iter().find(|(k, _)| *k == name).map(|(_, v)| OsString::from(v))
        };
        assert!(Color::Auto.applies(true, env(&[])));
        assert!(!Color::Auto.applies(false, env(&[])));
        assert!(!Color::Auto.applies(true, env(&[("NO_COLOR", "1")])));
        assert!(Color::Auto.applies(true, env(&[("NO_COLOR", "")])));
        assert!(!Color::Auto.applies(true, env(&[("TERM", "dumb")])));
        assert!(Color::Auto.applies(false, env(&[("CLICOLOR_FORCE", "1")])));
        assert!(!Color::Auto.applies(false, env(&[("CLICOLOR_FORCE", "0")])));
        assert!(Color::Always.applies(false, env(&[("NO_COLOR", "1")])));
        assert!(!Color::Never.applies(true, env(&[("CLICOLOR_FORCE", "1")])));
    }
}
