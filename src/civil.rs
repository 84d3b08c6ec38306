//! Civil dates as days since the Unix epoch, and back, by Howard Hinnant's `civil_from_days` and `days_from_civil`
//! (*chrono-Compatible Low-Level Date Algorithms*): years begin in March, so that the leap day is the last of its year.

/// Days from 1 March of the year 0 to 1 January 1970.
const EPOCH: u64 = 719_468;

/// Year, month and day of the day that many days after the epoch.
pub(crate) fn date(days: u64) -> (u64, u64, u64) {
    let days = days + EPOCH;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// Seconds from the epoch to a time of a day, UTC. Absent if there is no such month, hour, minute or second (a leap second
/// is one), no day of that number in any month, no year of four digits, or if it is before the epoch.
#[cfg(feature = "_http")]
pub(crate) fn seconds([year, month, day]: [u64; 3], [hour, minute, second]: [u64; 3]) -> Option<u64> {
    let is_date = (1..=9999).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    if !is_date || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1;
    Some((days.checked_sub(EPOCH)? * 24 + hour) * 3600 + minute * 60 + second)
}

#[cfg(all(test, feature = "_http"))]
mod tests {
    use super::*;

    #[test]
    fn every_day_of_two_millennia_is_a_date_and_back_and_follows_the_one_before() {
        let mut before = (1969, 12, 31);
        for days in 0..730_500 {
            let (year, month, day) = date(days);
            let follows = match day {
                1 if month == 1 => before == (year - 1, 12, 31),
                1 => before.0 == year && before.1 == month - 1 && (28..=31).contains(&before.2),
                _ => before == (year, month, day - 1),
            };
            assert!(follows, "{days} days");
            assert_eq!(seconds([year, month, day], [0, 0, 0]), Some(days * 86_400));
            before = (year, month, day);
        }
    }

    #[test]
    fn what_is_no_time_is_none() {
        assert_eq!(seconds([1970, 1, 1], [23, 59, 60]), Some(86_400));
        for (date, time) in [
            ([1969, 12, 31], [23, 59, 59]),
            ([0, 1, 1], [0, 0, 0]),
            ([10_000, 1, 1], [0, 0, 0]),
            ([2024, 0, 1], [0, 0, 0]),
            ([2024, 13, 1], [0, 0, 0]),
            ([2024, 1, 0], [0, 0, 0]),
            ([2024, 1, 32], [0, 0, 0]),
            ([2024, 1, 1], [24, 0, 0]),
            ([2024, 1, 1], [0, 60, 0]),
            ([2024, 1, 1], [0, 0, 61]),
        ] {
            assert_eq!(seconds(date, time), None, "{date:?} {time:?}");
        }
    }
}
