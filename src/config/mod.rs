//! Configuration: a YAML file becomes valid runtime settings, or a list of errors with their places.

pub mod settings;
