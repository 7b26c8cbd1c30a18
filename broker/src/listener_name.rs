//! What a listener is called: in the configuration, on the command line and in metrics.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ListenerName {
    Mqtts,
    Wss,
    Plain,
}

impl ListenerName {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Mqtts => "mqtts",
            Self::Wss => "wss",
            Self::Plain => "plain",
        }
    }
}
