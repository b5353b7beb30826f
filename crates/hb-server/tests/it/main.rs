//! The tests of hb-server: they drive the real program over real sockets.
