//! The subcommands that run analyses.

/// Declares them.
#[macro_export]
macro_rules! subcommands {
    ($($module:ident :: $Params:ident),* $(,)?) => {
        /// Every analysis, as a subcommand.
        #[cfg_attr(feature = "cli", derive(clap::Subcommand))]
        pub enum Command {
            $(
                #[cfg_attr(feature = "cli", command(
                    name = <$module::$Params as $crate::analyses::Analysis>::NAME,
                    about = <$module::$Params as $crate::parameters::Parameters>::ABOUT,
                    long_about = None
                ))]
                $Params(Box<$crate::cli::analysis::Args<$module::$Params>>),
            )*
        }

        impl Command {
            /// The analysis that was asked for, ready to run.
            pub fn job(&self) -> &dyn $crate::cli::analysis::Job {
                match self {
                    $(Command::$Params(args) => args.as_ref(),)*
                }
            }
        }
    };
}
