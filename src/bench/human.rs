//! Figures as people read them: three digits at most, and a unit.

/// A time: `4.9 ns`, `78 µs`, `2.1 ms`.
pub(crate) fn time(ns: f64) -> String {
    scaled(ns, &["ns", "µs", "ms", "s"])
}

/// A rate or a count: `850`, `12.7 k`, `203 M`.
pub(crate) fn count(number: f64) -> String {
    scaled(number, &["", "k", "M", "G"]).trim_end().to_owned()
}

/// A multiple: `1.1`, `84`, `9,200`.
pub(crate) fn multiple(ratio: f64) -> String {
    if !ratio.is_finite() {
        return "?".into();
    }
    if ratio < 9.95 {
        return format!("{ratio:.1}");
    }
    // Two digits tell the size; more would pretend to know.
    let unit = 10_f64.powi(ratio.log10().floor() as i32 - 1);
    let digits = format!("{:.0}", (ratio / unit).round() * unit);
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A figure in the smallest of its units that keeps it below a thousand.
pub(crate) fn scaled(mut value: f64, units: &[&str]) -> String {
    let mut units = units.iter();
    let mut unit = units.next().expect("there are units");
    while value >= 999.5 {
        let Some(next) = units.next() else { break };
        value /= 1_000.0;
        unit = next;
    }
    let digits = usize::from(value < 9.95 || (value < 99.95 && *unit == "k"));
    format!("{value:.digits$} {unit}")
}

#[cfg(test)]
mod tests;
