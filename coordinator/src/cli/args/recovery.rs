//! Arguments of `recovery`.

use clap::Subcommand;

const EXAMPLES: &str = "\
After a backup was restored, routers tell the coordinator what it signed since. Who was removed or disabled since stays
so. Who came since is a stray: adopt it, or cut it off.
  gatewrt-coordinator recovery show
  gatewrt-coordinator recovery adopt aeaqcaibaeaqcaib
  gatewrt-coordinator recovery adopt 3f1c… --name phone      # a client's gateway knows no name
  gatewrt-coordinator recovery cut-off aeaqcaibaeaqcaib
Access rules that were made since are lost. A router that had stricter ones keeps to both until you have made them again:
  gatewrt-coordinator recovery accept-rules office";

#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub(in crate::cli) enum RecoveryCommand {
    /// Show what became of the coordinator after it was set back, and who is not known any more
    Show,
    /// Adopt a node or external client that is not known any more: it keeps its keys and addresses
    Adopt {
        /// Id as in "recovery show"
        stray: String,
        /// Name; a client needs one, a node keeps its own without
        #[arg(long)]
        name: Option<String>,
    },
    /// Let a router go by the coordinator's access rules alone, not by the stricter ones as well that it had
    AcceptRules {
        /// Name or id of the router as in "recovery show"
        node: String,
    },
    /// Cut off a node or external client that is not known any more, for good
    CutOff {
        /// Id as in "recovery show"
        stray: String,
    },
}
