//! Sequential statistics that stay valid however often one looks.
