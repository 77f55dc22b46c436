use rand::Rng;
use wire::ClientId;

/// A client's identity, new for each opened log.
pub(crate) fn draw_client() -> ClientId {
    ClientId(rand::rng().random())
}

/// A number in `[0, 1)`.
pub(crate) fn jitter() -> f64 {
    rand::rng().random()
}
