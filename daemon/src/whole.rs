//! An error as a person reads it: with all that it came from, which no `Display` here repeats.

use std::error::Error;

/// The error and its sources, in one line.
pub fn whole(error: &dyn Error) -> String {
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
    fn what_the_system_said_is_not_lost() {
        let source = io::Error::other("Input/output error");
        let error = StoreError::Io { path: "/etc/gatewrt".into(), source };
        assert_eq!(whole(&error), "/etc/gatewrt can't be used: Input/output error");
    }
}
