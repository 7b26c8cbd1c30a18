//! Wakes sleeping phones with a push that carries no content.
