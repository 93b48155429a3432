//! Uploading and downloading blobs, through files: curl can send and receive those in pieces, and a
//! transfer that fails can be repeated.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result};

use super::{
    address::with_parameter,
    client::RegistryClient,
    refusal::Action,
    request::{Body, Request},
    response::Response,
    retry,
};

/// The slowest connection over which a blob can be uploaded, in bytes per second.
const MIN_SPEED: u64 = 100_000;
/// How long the download of a blob may take.
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(30 * 60);

impl RegistryClient<'_> {
    /// Whether the repository has a blob.
    ///
    /// # Errors
    /// When the registry cannot be reached, or refuses.
    pub fn has_blob(&self, digest: &str) -> Result<bool> {
        let request = Request::new("HEAD", self.url(&format!("blobs/{digest}")));
        let response = self.send(&request)?;
        match response.status {
            200 => Ok(true),
            404 => Ok(false),
            _ => Err(self.refused(Action::Read, &response).into()),
        }
    }

    /// Downloads a blob. Its content is not compared with its digest.
    ///
    /// # Errors
    /// When the registry cannot be reached, or refuses.
    pub fn blob(&self, digest: &str) -> Result<File> {
        let file = TransferFile::new(&self.transfers, "download", digest)?;
        let mut request = Request::new("GET", self.url(&format!("blobs/{digest}")));
        request.body = Body::Download(file.path());
        request.time_limit = DOWNLOAD_LIMIT;
        let response = self.send(&request)?;
        if !response.is_success() {
            return Err(self.refused(Action::Read, &response).into());
        }
        // An open file can be read also after its name is removed.
        File::open(&file.0).with_context(|| format!("cannot read the download of {digest}"))
    }

    /// Uploads a blob of a size in bytes.
    ///
    /// # Errors
    /// When the content cannot be read, or the registry cannot be reached or refuses.
    pub fn upload(&self, digest: &str, content: &mut impl Read, size: u64) -> Result<()> {
        let file = TransferFile::new(&self.transfers, "upload", digest)?;
        File::create(&file.0)
            .and_then(|mut copy| io::copy(content, &mut copy))
            .with_context(|| format!("cannot write `{}`", file.path()))?;
        let (mut response, url) = self.upload_file(&file, digest, size)?;
        // A token may expire while a large blob is uploaded.
        if response.status == 401 && self.authenticate(&url, &response)? {
            (response, _) = self.upload_file(&file, digest, size)?;
        }
        if response.status == 201 {
            Ok(())
        } else {
            Err(self.refused(Action::Push, &response).into())
        }
    }

    /// The last response, and the URL that it is from. Each attempt starts a new upload.
    fn upload_file(
        &self,
        file: &TransferFile,
        digest: &str,
        size: u64,
    ) -> Result<(Response, String)> {
        let start = Request::new("POST", self.url("blobs/uploads/"));
        // The first start authenticates, so that the blob itself is not sent without need.
        let mut started = Some(self.send(&start)?);
        let mut url = start.url.clone();
        let attempt = || {
            let mut start = start.clone();
            start.authorization = self.authorization_for(&start.url);
            let started = match started.take() {
                Some(started) => started,
                None => retry::send_once(self.exec, &start)?,
            };
            let Some(location) = started.header("location").filter(|_| started.status == 202)
            else {
                return Ok(started);
            };
            let location = self.absolute(location);
            let mut put = Request::new("PUT", with_parameter(&location, "digest", digest));
            put.authorization = self.authorization_for(&put.url);
            url.clone_from(&put.url);
            put.body = Body::Upload(file.path());
            put.time_limit = Duration::from_secs(60 + size / MIN_SPEED);
            retry::send_once(self.exec, &put)
        };
        let response = retry::retry(self.exec, |why| self.warn_of_retry(why), attempt)
            .map_err(|why| self.no_response(why))?;
        Ok((response, url))
    }
}

/// The temporary file of a blob transfer. It is removed when dropped.
struct TransferFile(PathBuf);

impl TransferFile {
    /// The path of a file that does not exist yet. Platforms that are read side by side may share
    /// blobs, so each transfer has its own file.
    fn new(folder: &Path, direction: &str, digest: &str) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot create the folder `{}`", folder.display()))?;
        let name = digest.trim_start_matches("sha256:");
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id();
        let name = format!("{direction}-{process}-{number}-{name}");
        Ok(Self(folder.join(name)))
    }

    fn path(&self) -> String {
        self.0.to_string_lossy().into_owned()
    }
}

impl Drop for TransferFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
