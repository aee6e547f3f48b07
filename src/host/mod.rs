//! Host tier: drivers around `proto`.
