//! Timestamps in labels and image configurations.

use std::time::{Duration, UNIX_EPOCH};

/// The last second of the year 9999, in seconds since 1970. RFC 3339 permits only years of four digits.
pub const MAX_TIMESTAMP: u64 = 253_402_300_799;

/// Formats a time in seconds since 1970: `2009-02-13T23:31:30Z`.
///
/// # Panics
/// If the time is later than [`MAX_TIMESTAMP`].
pub fn rfc3339(seconds: u64) -> String {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_formatted_in_utc() {
        assert_eq!(rfc3339(1_234_567_890), "2009-02-13T23:31:30Z");
        assert_eq!(rfc3339(MAX_TIMESTAMP), "9999-12-31T23:59:59Z");
    }
}
