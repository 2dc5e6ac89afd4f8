//! Every limit of this crate, with its unit and its reason.

/// How deep arrays and objects may nest in JSON that is canonicalised: 128 levels, as the common parsers allow.
/// What is deeper is compared byte by byte. The scanner recurses once per level, so this also bounds its stack.
pub const JSON_DEPTH_MAX: usize = 128;

/// How large a JSON document may be to be canonicalised, in bytes: positions in it are kept as `u32`.
pub const JSON_BYTES_MAX: usize = u32::MAX as usize;

/// How large the exponent of a number may be in scientific notation, either way, for the number to have a canonical
/// form: 10^15 is below 2^53, so that clients in languages whose only number is a double can count with it.
pub const JSON_EXPONENT_MAX: i64 = 1_000_000_000_000_000;

/// How many parts a multipart body may have to be compared part by part. Far above any form that people fill in;
/// it bounds the memory that a body of nothing but boundaries takes.
pub const MULTIPART_PARTS_MAX: usize = 1_024;

/// How many header lines one part of a multipart body may have, for the same reason.
pub const MULTIPART_HEADERS_MAX: usize = 32;

/// The longest boundary of a multipart body, in bytes (RFC 2046, section 5.1.1).
pub const MULTIPART_BOUNDARY_BYTES_MAX: usize = 70;

const _: () = assert!(JSON_DEPTH_MAX <= 512, "a deeper recursion needs an explicit stack");
