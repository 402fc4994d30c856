//! Opens a repository and its store as the settings say.

use std::sync::Arc;

use bygone_core::error;
use bygone_core::error::Error;
use bygone_core::repo::Place;
use bygone_core::repo::Repository;
use bygone_core::repo::Secret;
use bygone_core::store::Address;
use bygone_core::store::Store;
use bygone_core::store::Surroundings;
use bygone_core::watch::Watch;

use crate::access::s3_access;
use crate::exit::Result;
use crate::settings::Locations;
use crate::settings::Settings;
use crate::terminal::output;
use crate::terminal::passphrase;
use crate::terminal::passphrase::Given;
use crate::terminal::passphrase::Purpose;

impl Settings {
    /// The repository's place. A directory is known to exist; a bucket has not been asked yet.
    pub fn place(&self, watch: &Arc<Watch>) -> Result<Place> {
        self.place_by(watch, Address::open)
    }

    /// The place of a repository that may lack its description.
    pub fn place_to_repair(&self, watch: &Arc<Watch>) -> Result<Place> {
        self.place_by(watch, Address::open_incomplete)
    }

    /// The place of a new repository; a directory is created.
    pub fn new_place(&self, watch: &Arc<Watch>) -> Result<Place> {
        self.place_by(watch, Address::create)
    }

    fn place_by(
        &self,
        watch: &Arc<Watch>,
        open: impl FnOnce(&Address, &Surroundings<'_>) -> error::Result<Arc<dyn Store>>,
    ) -> Result<Place> {
        let Locations { address, catalog_base, .. } = self.locations()?;
        let store = self.store_by(watch, &address, open)?;
        Ok(Place { store, catalog_base })
    }

    /// A store at the end of this machine's link. A second store shares the limits of the first.
    pub fn store_by(
        &self,
        watch: &Arc<Watch>,
        address: &Address,
        open: impl FnOnce(&Address, &Surroundings<'_>) -> error::Result<Arc<dyn Store>>,
    ) -> Result<Arc<dyn Store>> {
        let s3_access = |address: &_| s3_access(address, &self.environment.access);
        let surroundings = Surroundings { link: &self.link, watch, patience: self.patience, s3_access: &s3_access };
        Ok(open(address, &surroundings)?)
    }

    /// Opens the repository, asking for the passphrase if necessary. Ends early if `watch` is cancelled.
    pub fn open(&self, watch: &Arc<Watch>) -> Result<Repository> {
        // The store first: nobody should type a passphrase only to learn that the disk is not there.
        let found = Repository::find(&self.place(watch)?)?;
        let Given { secret, hint } = self.passphrase_and_hint(Purpose::Open, watch)?;
        let opened = found.open(&secret);
        if let (Err(Error::WrongKey { .. }), Some(hint)) = (&opened, hint) {
            output::warn(self.json, hint);
        }
        Ok(opened?)
    }

    /// The passphrase that opens the repository, or that a new repository gets.
    pub fn passphrase(&self, purpose: Purpose, watch: &Watch) -> Result<Secret> {
        Ok(self.passphrase_and_hint(purpose, watch)?.secret)
    }

    fn passphrase_and_hint(&self, purpose: Purpose, watch: &Watch) -> Result<Given> {
        passphrase::obtain(&self.passphrase, purpose, watch, self.json)
    }
}
