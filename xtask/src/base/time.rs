//! Times in seconds since 1970, as labels, image configurations and tar files have them.

use std::time::{Duration, UNIX_EPOCH};

/// The last second of the year 9999: later years do not fit into RFC 3339's four digits.
pub const MAX_TIMESTAMP: u64 = 253_402_300_799;

/// A time in seconds since 1970, in UTC: `2009-02-13T23:31:30Z`. Later times than
/// [`MAX_TIMESTAMP`] have no such form, and make it panic.
pub fn rfc3339(seconds: u64) -> String {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_in_utc() {
        assert_eq!(rfc3339(1_234_567_890), "2009-02-13T23:31:30Z");
        assert_eq!(rfc3339(MAX_TIMESTAMP), "9999-12-31T23:59:59Z");
    }
}
