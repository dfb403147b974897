"""The command line: one module per verb, each with ``add_arguments(parser)`` and ``main(args) -> int``."""
