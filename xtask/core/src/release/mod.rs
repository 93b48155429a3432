//! Publishing an image: preflight, build or take, check, push by digest, verify what the registry
//! holds, sign, promote (give it its tags), write the receipt. No tag names the image before it has
//! been verified.

pub mod archive;
pub mod attest;
pub mod builder;
pub mod client;
pub mod destination;
pub mod dist;
pub mod expected;
pub mod github;
pub mod mirror;
pub mod paths;
pub mod pipeline;
pub mod preflight;
pub mod promote;
pub mod promotion;
pub mod push;
pub mod receipt;
pub mod sign;
pub mod tags;
pub mod verify;
