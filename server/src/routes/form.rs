//! A `multipart/form-data` body, read part by part as it arrives: text fields first, so that a request can be refused
//! before its file is read, then the file, straight into a temporary one.

use std::{
    fs::File,
    future::poll_fn,
    io::{self, Seek},
    path::Path,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::Body,
    http::{HeaderMap, header},
};
use bytes::Bytes;
use futures_util::Stream;
use multer::Multipart;
use tokio::io::{AsyncWriteExt, BufWriter};

use super::body::{Gate, Metered, Refusal};
use crate::{
    config::Serve,
    error::{AudioFault, Error, quoted},
    uploads::Meter,
};

/// The only type of body that uploads come in.
const EXPECTED: &str = "multipart/form-data";
/// The part that holds the recording, unless a form has it elsewhere.
const FILE: &str = "file";
/// Bytes that are written to the disk together.
const SPOOL_BYTES: usize = 256 << 10;
/// When to ask again after the disk was full.
const NO_SPACE_RETRY: Duration = Duration::from_secs(10);

/// A text field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Its name, as sent.
    pub name: String,
    /// Its text.
    pub value: String,
}

/// A file that was received.
#[derive(Debug)]
pub struct Upload {
    /// Its bytes, from the start; without a name on the disk, so that it goes with its last handle.
    pub file: File,
    /// How many.
    pub bytes: u64,
    /// The end of its name, in lower case: a hint, and never a path.
    pub extension: Option<String>,
}

/// A form that is being received.
pub struct Form {
    multipart: Multipart<'static>,
    gate: Gate,
    limits: Serve,
    /// The part that holds the recording.
    file_name: &'static str,
    fields: Vec<Field>,
    n_parts: usize,
    /// Of all names and values.
    n_text_bytes: usize,
    /// The file's part, where reading the fields came to it.
    file: Option<multer::Field<'static>>,
    has_had_file: bool,
    is_at_end: bool,
}

impl Form {
    /// A form that no byte of was read yet. `meter` hears how it comes in.
    ///
    /// # Errors
    /// A body that is no form, is compressed, or says that it is too large.
    pub fn open(headers: &HeaderMap, body: Body, limits: &Serve, meter: Meter) -> Result<Self, Error> {
        if let Some(encoding) = headers.get(header::CONTENT_ENCODING) {
            // Nothing that unpacks is unpacked: a small body stays small.
            if !encoding.as_bytes().eq_ignore_ascii_case(b"identity") {
                return Err(Error::ContentEncoding(quoted(&String::from_utf8_lossy(encoding.as_bytes()))));
            }
        }
        let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let boundary = match content_type.map(multer::parse_boundary) {
            Some(Ok(boundary)) => boundary,
            Some(Err(multer::Error::NoBoundary)) => {
                return Err(Error::Form("the content type names no boundary".into()));
            }
            _ => return Err(Error::ContentType { expected: EXPECTED }),
        };
        // Said, not yet true: it only spares both sides a useless upload.
        let said =
            headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        if said.is_some_and(|bytes| bytes > limits.max_upload_bytes) {
            return Err(Error::TooLarge { limit_bytes: limits.max_upload_bytes });
        }
        let gate = Gate::default();
        let body = Metered::new(body.into_data_stream(), gate.clone(), meter, limits);
        Ok(Self {
            multipart: Multipart::new(body, boundary),
            gate,
            limits: limits.clone(),
            file_name: FILE,
            fields: Vec::new(),
            n_parts: 0,
            n_text_bytes: 0,
            file: None,
            has_had_file: false,
            is_at_end: false,
        })
    }

    /// The same whose recording is in the part of this name.
    pub fn with_file(self, file_name: &'static str) -> Self {
        Self { file_name, ..self }
    }

    /// The text fields read so far, in order.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// Whether there is nothing left to read.
    pub fn is_at_end(&self) -> bool {
        self.is_at_end
    }

    /// Reads text fields until the file or the end comes.
    ///
    /// # Errors
    /// A body that is no form, or more of anything than the limits allow.
    pub async fn read_fields(&mut self) -> Result<(), Error> {
        while self.file.is_none() && !self.is_at_end {
            let Some(part) = self.next_part().await? else {
                self.is_at_end = true;
                break;
            };
            self.n_parts += 1;
            if self.n_parts > self.limits.max_fields {
                let message = format!("more than {} parts", self.limits.max_fields);
                return Err(Error::Form(message.into()));
            }
            let Some(name) = part.name().map(str::to_owned) else {
                return Err(Error::Form("a part has no name".into()));
            };
            if let Some(encoding) = part.headers().get("content-transfer-encoding") {
                let is_plain = [b"binary".as_slice(), b"8bit", b"7bit"]
                    .iter()
                    .any(|plain| encoding.as_bytes().eq_ignore_ascii_case(plain));
                if !is_plain {
                    let message = format!("part {} has a content-transfer-encoding", quoted(&name));
                    return Err(Error::Form(message.into()));
                }
            }
            if name == self.file_name {
                if self.has_had_file {
                    return Err(Error::invalid(self.file_name, "given twice; a request has one recording"));
                }
                self.has_had_file = true;
                self.file = Some(part);
            } else {
                self.count_text(name.len())?;
                let value = self.read_text(&name, part).await?;
                self.fields.push(Field { name, value });
            }
        }
        Ok(())
    }

    /// Receives the file that [`Form::read_fields`] came to.
    ///
    /// # Errors
    /// There is none, the body breaks off, or more of it than the limits allow.
    pub async fn spool_file(&mut self) -> Result<Upload, Error> {
        let Some(mut part) = self.file.take() else { return Err(Error::Missing(self.file_name)) };
        let extension = part.file_name().and_then(extension);
        let file = tokio::task::spawn_blocking(tempfile::tempfile).await.map_err(Error::internal)?;
        let file = file.map_err(spool_error)?;
        // Each write is done on the blocking pool before the next one is taken from the socket: a slow disk slows the
        // client down, and nothing piles up here.
        let mut spool = BufWriter::with_capacity(SPOOL_BYTES, tokio::fs::File::from_std(file));
        let mut bytes = 0;
        while let Some(chunk) = self.next_chunk(&mut part).await? {
            bytes += chunk.len() as u64;
            spool.write_all(&chunk).await.map_err(spool_error)?;
        }
        spool.flush().await.map_err(spool_error)?;
        let mut file = spool.into_inner().into_std().await;
        file.rewind().map_err(spool_error)?;
        if bytes == 0 {
            let message = "the file is empty".to_owned();
            return Err(Error::Audio { field: self.file_name, fault: AudioFault::Invalid, message });
        }
        Ok(Upload { file, bytes, extension })
    }

    async fn read_text(&mut self, name: &str, mut part: multer::Field<'static>) -> Result<String, Error> {
        let mut text = Vec::new();
        while let Some(chunk) = self.next_chunk(&mut part).await? {
            if text.len() + chunk.len() > self.limits.max_field_bytes {
                let message = format!("longer than {} bytes", self.limits.max_field_bytes);
                return Err(Error::invalid(shown_name(name), message));
            }
            self.count_text(chunk.len())?;
            text.extend_from_slice(&chunk);
        }
        String::from_utf8(text).map_err(|_| Error::invalid(shown_name(name), "not UTF-8"))
    }

    /// Names and values are kept until the request is done: what one may have, all of them together may not.
    fn count_text(&mut self, n_bytes: usize) -> Result<(), Error> {
        self.n_text_bytes += n_bytes;
        let limit_bytes = self.limits.max_form_text_bytes;
        if self.n_text_bytes > limit_bytes {
            let message = format!("its text fields have more than {limit_bytes} bytes together");
            return Err(Error::Form(message.into()));
        }
        Ok(())
    }

    async fn next_part(&mut self) -> Result<Option<multer::Field<'static>>, Error> {
        let Self { multipart, gate, .. } = self;
        poll_fn(|context| gate.feed(context, |context| multipart.poll_next_field(context)))
            .await
            .map_err(|error| self.refuse(&error))
    }

    async fn next_chunk(&mut self, part: &mut multer::Field<'static>) -> Result<Option<Bytes>, Error> {
        let gate = &self.gate;
        poll_fn(|context| gate.feed(context, |context| poll_chunk(part, context)))
            .await
            .transpose()
            .map_err(|error| self.refuse(&error))
    }

    fn refuse(&self, error: &multer::Error) -> Error {
        let limits = &self.limits;
        let slow = |what, limit: crate::config::Secs| Error::SlowUpload { what, limit_secs: limit.get() };
        if let multer::Error::StreamReadFailed(cause) = error {
            return match cause.downcast_ref::<Refusal>() {
                Some(Refusal::TooLarge) => Error::TooLarge { limit_bytes: limits.max_upload_bytes },
                Some(Refusal::Stuck) => Error::Form("the headers of a part do not end".into()),
                Some(Refusal::Idle) => slow("a pause", limits.upload_idle_secs),
                Some(Refusal::Late) => slow("the whole of it", limits.upload_timeout_secs),
                Some(Refusal::Displaced) => {
                    Error::Displaced { min_bytes_per_sec: limits.upload_min_bytes_per_sec }
                }
                Some(Refusal::Broken) | None => Error::Disconnected,
            };
        }
        Error::Form(match error {
            multer::Error::IncompleteStream | multer::Error::IncompleteFieldData { .. } => {
                "it breaks off before its closing boundary".into()
            }
            _ => "the headers of a part make no sense".into(),
        })
    }
}

fn poll_chunk(
    part: &mut multer::Field<'static>,
    context: &mut Context<'_>,
) -> Poll<Option<Result<Bytes, multer::Error>>> {
    Pin::new(part).poll_next(context)
}

/// A full disk is no fault of the program, and passes.
fn spool_error(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Error::NoSpace { retry_after: NO_SPACE_RETRY }
        }
        _ => Error::internal(anyhow::Error::new(error).context("the temporary file for an upload")),
    }
}

/// The end of a file's name, if it is an ordinary one.
fn extension(file_name: &str) -> Option<String> {
    let extension = Path::new(file_name).extension()?.to_str()?;
    let is_ordinary = extension.len() <= 8 && extension.bytes().all(|byte| byte.is_ascii_alphanumeric());
    is_ordinary.then(|| extension.to_ascii_lowercase())
}

/// A field's name as an error may repeat it.
pub(super) fn shown_name(name: &str) -> String {
    let is_plain = (1..=64).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic());
    if is_plain { name.to_owned() } else { quoted(name) }
}

#[cfg(test)]
mod tests;
