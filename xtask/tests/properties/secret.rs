use crate::{
    base::secret::{MASK, looks_like_secret, redact},
    properties::text,
};

/// A redacted text contains no secret, and a text without a secret does not change.
pub fn redacted(input: &[u8]) {
    let text = text(input);
    let redacted = redact(&text);
    assert!(
        !looks_like_secret(&redacted),
        "{text:?} became {redacted:?}"
    );
    if looks_like_secret(&text) {
        assert!(redacted.contains(MASK), "{redacted:?}");
    } else {
        assert_eq!(redacted, text);
    }
    assert_eq!(redact(&redacted), redacted);
    assert_eq!(redacted.lines().count(), text.lines().count());
}
