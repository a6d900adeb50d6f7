//! Text of an error with its sources, for people. No `Display` of ours repeats its source.

use std::error::Error;

/// Text of an error and its sources in one line, the outermost first.
pub fn error_chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreError;
    use std::io;

    #[test]
    fn store_error_keeps_the_systems_words() {
        let source = io::Error::other("Input/output error");
        let error = StoreError::Io { path: "/etc/gatewrt".into(), source };
        assert_eq!(error_chain(&error), "/etc/gatewrt can't be used: Input/output error");
    }
}
