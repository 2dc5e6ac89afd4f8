//! Numbers as exact decimals, laid out as ECMAScript lays out its own (ECMA-262, `Number::toString`, radix 10).

use crate::limits::JSON_EXPONENT_MAX;

/// ECMAScript writes whole numbers of up to 21 digits without an exponent.
const PLAIN_DIGITS_MAX: usize = 21;

/// A mantissa shifts the exponent by less than its length, which is below 2^32.
const SPELLED_EXPONENT_MAX: i64 = JSON_EXPONENT_MAX + (1 << 32);

/// Why a token has no exact value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OutOfRange;

/// Whether a grammatical number's value can be written down. Checked by the scan, so that writing cannot fail.
/// Judged by the value, not by its spelling: every spelling of a number is refused, or none.
pub(super) fn check(token: &[u8]) -> Result<(), OutOfRange> {
    let Some(e) = token.iter().position(|byte| matches!(byte, b'e' | b'E')) else { return Ok(()) };
    let Some(Significant { point, .. }) = significant(&token[..e]) else { return Ok(()) };
    match exponent(&token[e + 1..]) {
        Some(exponent) if (point - 1 + exponent).abs() <= JSON_EXPONENT_MAX => Ok(()),
        Some(_) | None => Err(OutOfRange),
    }
}

/// Appends the canonical spelling of a token that [`check`] has passed.
pub(super) fn write(token: &[u8], form: &mut Vec<u8>) {
    if is_plain(token) {
        form.extend_from_slice(token);
        return;
    }
    let (mantissa, exponent) = match token.iter().position(|byte| matches!(byte, b'e' | b'E')) {
        Some(e) => (&token[..e], exponent(&token[e + 1..]).unwrap_or(0)),
        None => (token, 0),
    };
    let Some(Significant { digits, point }) = significant(mantissa) else {
        form.push(b'0');
        return;
    };
    if token[0] == b'-' {
        form.push(b'-');
    }
    lay_out(&digits, point + exponent, form);
}

/// Most numbers are whole, short and canonical already.
fn is_plain(token: &[u8]) -> bool {
    let digits = token.strip_prefix(b"-").unwrap_or(token);
    (token[0] != b'-' || digits != b"0")
        && digits.len() <= PLAIN_DIGITS_MAX
        && digits.iter().all(u8::is_ascii_digit)
}

/// The exponent as it is spelled, or nothing when it is so large that no mantissa brings it back into range.
fn exponent(part: &[u8]) -> Option<i64> {
    let negative = part.first() == Some(&b'-');
    let digits = part.strip_prefix(b"-").or(part.strip_prefix(b"+")).unwrap_or(part);
    let mut value: i64 = 0;
    for digit in digits {
        value = value * 10 + i64::from(digit - b'0');
        // Checked at each digit, so that the next step cannot overflow.
        if value > SPELLED_EXPONENT_MAX {
            return None;
        }
    }
    Some(if negative { -value } else { value })
}

/// A mantissa's value as `0.digits × 10^point`, digits without zeros at either end.
struct Significant {
    digits: Vec<u8>,
    point: i64,
}

/// The significant digits of a mantissa; nothing when it is zero.
fn significant(mantissa: &[u8]) -> Option<Significant> {
    let mantissa = mantissa.strip_prefix(b"-").unwrap_or(mantissa);
    let whole = mantissa.iter().position(|&byte| byte == b'.').unwrap_or(mantissa.len());
    let mut digits: Vec<u8> = mantissa.iter().copied().filter(|&byte| byte != b'.').collect();
    let leading = digits.iter().take_while(|&&digit| digit == b'0').count();
    let trailing = digits[leading..].iter().rev().take_while(|&&digit| digit == b'0').count();
    digits.truncate(digits.len() - trailing);
    digits.drain(..leading);
    // Both are lengths within one document, far below i64::MAX.
    let point = i64::try_from(whole).unwrap_or(i64::MAX / 2) - i64::try_from(leading).unwrap_or(i64::MAX / 2);
    (!digits.is_empty()).then_some(Significant { digits, point })
}

/// Writes `0.digits × 10^point` as `Number::toString` would.
fn lay_out(digits: &[u8], point: i64, form: &mut Vec<u8>) {
    match usize::try_from(point) {
        Ok(whole) if digits.len() <= whole && whole <= PLAIN_DIGITS_MAX => {
            form.extend_from_slice(digits);
            form.resize(form.len() + whole - digits.len(), b'0');
        }
        Ok(whole @ 1..=PLAIN_DIGITS_MAX) => {
            form.extend_from_slice(&digits[..whole]);
            form.push(b'.');
            form.extend_from_slice(&digits[whole..]);
        }
        _ if -6 < point && point <= 0 => {
            form.extend_from_slice(b"0.");
            for _ in point..0 {
                form.push(b'0');
            }
            form.extend_from_slice(digits);
        }
        _ => {
            form.push(digits[0]);
            if digits.len() > 1 {
                form.push(b'.');
                form.extend_from_slice(&digits[1..]);
            }
            let sign = if point > 0 { '+' } else { '-' };
            form.extend_from_slice(format!("e{sign}{}", (point - 1).unsigned_abs()).as_bytes());
        }
    }
}
