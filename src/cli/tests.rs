//! The command line as a whole: what is parsed, what is printed, what is asked of a fake Teal.
