//! The terminal: questions to the user, and a pseudo-terminal for a program that draws its progress.

use std::{
    fs::File,
    io::{self, Read as _},
    os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
    ptr,
};

/// Waits until standard input can be read. False if a signal arrived or nothing came in the time.
#[allow(unsafe_code)]
fn has_input(milliseconds: i32) -> bool {
    let mut stdin = libc::pollfd {
        fd: libc::STDIN_FILENO,
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: the call writes to the one structure that it gets, which lives until after the call (poll(2)).
    unsafe { libc::poll(&raw mut stdin, 1, milliseconds) > 0 }
}

/// Reads one line from standard input; none if `is_interrupted` becomes true. It polls, because a
/// plain read starts again after a signal, so Ctrl-C would not end it.
pub fn read_line(is_interrupted: impl Fn() -> bool) -> io::Result<Option<String>> {
    const INTERVAL: i32 = 100;
    // Without a buffer, so that no input stays there where `poll` does not see it.
    let mut stdin = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut line = Vec::new();
    loop {
        if is_interrupted() {
            return Ok(None);
        }
        if !has_input(INTERVAL) {
            continue;
        }
        let mut byte = [0];
        if stdin.read(&mut byte)? == 0 || byte[0] == b'\n' {
            return Ok(Some(String::from_utf8_lossy(&line).into_owned()));
        }
        line.push(byte[0]);
    }
}

/// While it lives, the terminal does not show what is typed.
pub struct NoEcho(libc::termios);

impl NoEcho {
    /// # Errors
    /// When standard input is not a terminal.
    #[allow(unsafe_code)]
    pub fn new() -> io::Result<Self> {
        // SAFETY: all bits zero are a valid termios, and the call fills it (tcgetattr(3)).
        let before = unsafe {
            let mut before: libc::termios = std::mem::zeroed();
            check(libc::tcgetattr(libc::STDIN_FILENO, &raw mut before))?;
            before
        };
        let mut silent = before;
        silent.c_lflag &= !libc::ECHO;
        set_terminal(&silent)?;
        Ok(Self(before))
    }
}

impl Drop for NoEcho {
    fn drop(&mut self) {
        let _ = set_terminal(&self.0);
    }
}

#[allow(unsafe_code)]
fn set_terminal(settings: &libc::termios) -> io::Result<()> {
    // SAFETY: the call only reads the structure (tcsetattr(3)).
    check(unsafe { libc::tcsetattr(libc::STDIN_FILENO, libc::TCSAFLUSH, ptr::from_ref(settings)) })
}

fn check(code: libc::c_int) -> io::Result<()> {
    if code == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// A pseudo-terminal. A program that writes to it draws as it does on the real one, and xtask can read what
/// it draws.
pub struct PseudoTerminal {
    /// For xtask to read.
    pub ours: File,
    /// For the program to write to.
    pub theirs: File,
}

impl PseudoTerminal {
    /// Opens one that has the size of the terminal at standard error.
    ///
    /// # Errors
    /// When the system has none.
    #[allow(unsafe_code)]
    pub fn open() -> io::Result<Self> {
        let (mut ours, mut theirs): (RawFd, RawFd) = (-1, -1);
        // SAFETY: the call writes to the two numbers, and the null pointers mean defaults (openpty(3)). The file
        // descriptors are new, so nothing else owns them.
        let (ours, theirs) = unsafe {
            check(libc::openpty(
                &raw mut ours,
                &raw mut theirs,
                ptr::null_mut(),
                ptr::null_mut(),
                ptr::null_mut(),
            ))?;
            (OwnedFd::from_raw_fd(ours), OwnedFd::from_raw_fd(theirs))
        };
        for end in [&ours, &theirs] {
            // SAFETY: the file descriptor is open. The flag keeps children from inheriting it
            // (fcntl(2)).
            check(unsafe { libc::fcntl(end.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) })?;
        }
        let terminal = Self {
            ours: File::from(ours),
            theirs: File::from(theirs),
        };
        copy_size(&terminal.ours);
        Ok(terminal)
    }
}

/// Gives a pseudo-terminal the size of the terminal at standard error.
#[allow(unsafe_code)]
pub fn copy_size(pseudo_terminal: &File) {
    let mut size = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the calls read and write the structure, which lives until after them (ioctl_tty(2)).
    unsafe {
        if libc::ioctl(libc::STDERR_FILENO, libc::TIOCGWINSZ, &raw mut size) == 0 {
            libc::ioctl(
                pseudo_terminal.as_raw_fd(),
                libc::TIOCSWINSZ,
                &raw const size,
            );
        }
    }
}
