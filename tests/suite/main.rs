//! Behaviour of the library and of the binary, without any download.

mod support;

mod parity;
