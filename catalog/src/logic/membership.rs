//! Who serves the log.

use std::net::SocketAddr;
use std::ops::RangeInclusive;

use wire::StripeId;
use wire::limits::MAX_STRIPES;

use super::assign::assigned;
use crate::CatalogError;

/// A stripe-writer and the stripes that it owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Writer {
    /// TCP address.
    pub address: SocketAddr,
    /// First and last stripe. Where ranges overlap, [`assigned`](crate::assigned) chooses.
    pub stripes: RangeInclusive<u16>,
}

/// The sequencers and all stripe-writers of a log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Membership {
    /// UDP addresses of the sequencers: any of them may reign, the others stand by.
    pub sequencers: Vec<SocketAddr>,
    /// All stripe-writers.
    pub writers: Vec<Writer>,
}

impl Membership {
    /// Checks that each of the `stripes` stripes of a layout has exactly one owner.
    ///
    /// # Errors
    /// [`CatalogError::Invalid`] that names the first stripe that has none or several. Stripes beyond
    /// the layout are no error: a later segment may have them.
    pub fn checked(self, stripes: u32) -> Result<Self, CatalogError> {
        for stripe in (0..stripes).filter_map(|s| u16::try_from(s).ok()) {
            let owners = self.writers.iter().filter(|w| w.stripes.contains(&stripe));
            let owners = owners.count();
            if owners != 1 {
                return Err(CatalogError::Invalid(format!(
                    "membership.writers: each stripe needs exactly one owner: stripe={stripe} owners={owners} stripes={stripes}"
                )));
            }
        }
        Ok(self)
    }

    /// Stripes, counted from the first, that have exactly one owner each: a layout may have as many.
    #[must_use]
    pub fn owned_stripes(&self) -> u32 {
        let owned = (0..MAX_STRIPES).take_while(|stripe| {
            let owners = self.writers.iter().filter(|writer| {
                u16::try_from(*stripe).is_ok_and(|stripe| writer.stripes.contains(&stripe))
            });
            owners.count() == 1
        });
        u32::try_from(owned.count()).unwrap_or(MAX_STRIPES)
    }

    /// The address of the stripe-writer that is to own a stripe, as [`assigned`] finds it.
    #[must_use]
    pub fn owner(&self, stripe: StripeId) -> Option<SocketAddr> {
        let owner = assigned(&self.writers, stripe).and_then(|at| self.writers.get(at));
        owner.map(|writer| writer.address)
    }

    /// The addresses of all stripe-writers.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.writers.iter().map(|writer| writer.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(ranges: &[RangeInclusive<u16>]) -> Membership {
        let address = SocketAddr::from(([127, 0, 0, 1], 7500));
        let writer = |stripes: &RangeInclusive<u16>| Writer {
            address,
            stripes: stripes.clone(),
        };
        Membership {
            sequencers: vec![address],
            writers: ranges.iter().map(writer).collect(),
        }
    }

    #[test]
    fn every_stripe_has_exactly_one_owner() {
        assert!(members(&[0..=3, 4..=7]).checked(8).is_ok());
        assert!(members(&[0..=1023]).checked(8).is_ok());
        assert!(members(&[0..=3, 5..=7]).checked(8).is_err());
        assert!(members(&[0..=4, 4..=7]).checked(8).is_err());
        assert!(members(&[]).checked(1).is_err());
    }

    #[test]
    fn h5_a_layout_may_have_as_many_stripes_as_have_one_owner_each() {
        assert_eq!(members(&[0..=3, 4..=7]).owned_stripes(), 8);
        assert_eq!(members(&[0..=2000]).owned_stripes(), MAX_STRIPES);
        assert_eq!(members(&[0..=3, 5..=7]).owned_stripes(), 4);
        assert_eq!(members(&[0..=4, 4..=7]).owned_stripes(), 4);
        assert_eq!(members(&[]).owned_stripes(), 0);
    }
}
