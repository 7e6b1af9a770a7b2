//! The audio track of a container and the decoder for it.

use symphonia::core::codecs::CodecParameters;
use symphonia::core::codecs::audio::well_known as codec_ids;
use symphonia::core::codecs::audio::{AudioCodecId, AudioCodecParameters, AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error as SymphoniaError;
use symphonia::core::formats::Track;
use symphonia::core::packet::Packet;
use symphonia::default::get_codecs;

use super::edit_list::Edit;
use super::guard::guard;
use super::joined::FileEnd;
use super::opus::{self, OpusDecoder, OpusHead};
use crate::{Error, Limits};

/// Largest packet that a decoder may be opened for, samples over all channels: decoders reserve it up front, from
/// what the header says, and an allocation that fails cannot be caught. FLAC allows 65535 frames of 8 channels.
const MAX_PACKET_SAMPLES: u64 = 1 << 21;

/// The track being decoded.
pub(super) struct AudioTrack {
    pub(super) id: u32,
    pub(super) codec: String,
    pub(super) is_he_aac: bool,
    /// What the container says about its length, seconds.
    pub(super) stated_secs: Option<f64>,
    params: AudioCodecParameters,
    decoder: TrackDecoder,
    /// What the container presents of the track, where the demuxer leaves the cutting to us.
    presented: Presented,
    /// Whether packets count their lengths in frames.
    counts_frames: bool,
    /// Frames of the packets that were passed over instead of decoded.
    n_passed_frames: u64,
}

/// The part of a track that an MP4 edit list presents, still to be cut from the packets to come.
#[derive(Debug, Clone, Copy)]
struct Presented {
    skip_frames: u64,
    frames_left: u64,
}

impl Presented {
    const ALL: Presented = Presented { skip_frames: 0, frames_left: u64::MAX };

    /// Cuts one packet's interleaved samples.
    fn cut(&mut self, interleaved: &mut Vec<f32>, channels: usize) {
        let n_frames = interleaved.len() / channels.max(1);
        let skip = usize::try_from(self.skip_frames).map_or(n_frames, |skip| skip.min(n_frames));
        let kept =
            usize::try_from(self.frames_left).map_or(n_frames - skip, |left| left.min(n_frames - skip));
        self.skip_frames -= skip as u64;
        self.frames_left -= kept as u64;
        if skip > 0 || kept < n_frames {
            interleaved.truncate((skip + kept) * channels);
            interleaved.drain(..skip * channels);
        }
    }
}

enum TrackDecoder {
    Symphonia(Box<dyn AudioDecoder>),
    Opus(Box<OpusDecoder>),
}

/// What one packet decoded to.
pub(super) struct PacketShape {
    pub(super) channels: usize,
    pub(super) sample_rate: u32,
}

/// Why one packet gave nothing.
pub(super) enum PacketError {
    /// Damaged: skip it and go on.
    Damaged,
    /// Not worth going on.
    Refused(Error),
}

impl AudioTrack {
    /// The first audio track that can be decoded; video, subtitle and unknown tracks are passed over.
    pub(super) fn choose(tracks: &[Track], limits: &Limits) -> Result<Self, Error> {
        let mut refused = None;
        for track in tracks {
            let Some(CodecParameters::Audio(params)) = &track.codec_params else { continue };
            match Self::open(track, params, limits) {
                Ok(chosen) => return Ok(chosen),
                // The first track's reason is the one that a person expects to read.
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        Err(refused.unwrap_or_else(|| Error::unsupported("a file without an audio track")))
    }

    fn open(track: &Track, params: &AudioCodecParameters, limits: &Limits) -> Result<Self, Error> {
        if let Some(channels) = &params.channels {
            limits.check_channels(channels.count())?;
        }
        if let Some(sample_rate) = params.sample_rate {
            limits.check_sample_rate(sample_rate)?;
        }
        let channels = params.channels.as_ref().map_or(1, |channels| channels.count().max(1) as u64);
        let frames = params.max_frames_per_packet.unwrap_or(0).max(params.frames_per_block.unwrap_or(0));
        if frames.saturating_mul(channels) > MAX_PACKET_SAMPLES {
            return Err(Error::undecodable(format!("packets of {frames} samples")));
        }
        let stated_secs = stated_secs(track, params);
        let decoder = TrackDecoder::new(params)?;
        Ok(AudioTrack {
            id: track.id,
            codec: codec_name(params),
            is_he_aac: is_he_aac(params),
            stated_secs,
            params: params.clone(),
            decoder,
            presented: Presented::ALL,
            counts_frames: counts_frames(track, params),
            n_passed_frames: 0,
        })
    }

    /// Channels and sample rate, where the header states them.
    pub(super) fn shape(&self) -> Option<(usize, u32)> {
        let (channels, rate) = (self.params.channels.as_ref()?.count(), self.params.sample_rate?);
        (channels > 0 && rate > 0).then_some((channels, rate))
    }

    /// The stated length of uncompressed audio, when a file of `n_bytes` can hold it.
    pub(super) fn pcm_secs_within(&self, n_bytes: u64) -> Option<f64> {
        let (channels, rate) = self.shape().filter(|_| self.is_pcm())?;
        let bits = self.params.bits_per_coded_sample.or(self.params.bits_per_sample)?;
        let stated_secs = self.stated_secs?;
        let stated_bytes = stated_secs * f64::from(rate) * channels as f64 * f64::from(bits.div_ceil(8));
        (stated_bytes <= n_bytes as f64).then_some(stated_secs)
    }

    /// Whether the lengths of packets, as the container has them, are those that decoding would give.
    pub(super) fn counts_frames(&self) -> bool {
        self.counts_frames
    }

    /// Counts a packet that is not decoded.
    pub(super) fn pass(&mut self, packet: &Packet) {
        let mut frames = packet.dur.get();
        if matches!(self.codec.as_str(), "mp1" | "mp2" | "mp3") {
            // Here symphonia 0.6.1 states the length without the cuts at the ends, which its decoder makes.
            frames = frames.saturating_sub(packet.trim_start.get()).saturating_sub(packet.trim_end.get());
        }
        self.n_passed_frames = self.n_passed_frames.saturating_add(frames);
    }

    /// What the packets that were passed over would last.
    pub(super) fn passed_secs(&self) -> Option<f64> {
        let (_, rate) = self.shape()?;
        let frames = self.n_passed_frames.saturating_sub(self.presented.skip_frames);
        Some(frames.min(self.presented.frames_left) as f64 / f64::from(rate))
    }

    /// Presents only what the track's MP4 edit says, which symphonia reads and does not apply: without it, AAC
    /// starts with its encoder's delay.
    pub(super) fn apply_edit(&mut self, edit: &Edit) {
        let Some(rate) = self.params.sample_rate else { return };
        let frames = |secs: f64| (secs * f64::from(rate)).round().max(0.0) as u64;
        // An Opus stream states its delay itself (`pre_skip`), and the decoder has removed it.
        let is_opus = matches!(self.decoder, TrackDecoder::Opus(_));
        let skip_frames = if is_opus { 0 } else { frames(edit.start_secs) };
        let frames_left = edit.duration_secs.map_or(u64::MAX, frames);
        self.presented = Presented { skip_frames, frames_left };
        self.stated_secs = edit.duration_secs.or(self.stated_secs);
    }

    /// True for uncompressed audio, whose length is bounded by that of the file.
    pub(super) fn is_pcm(&self) -> bool {
        self.codec.starts_with("pcm")
    }

    /// Decodes one packet to `interleaved`, which is replaced. `admit` sees the size before anything is copied.
    pub(super) fn decode(
        &mut self,
        packet: &Packet,
        interleaved: &mut Vec<f32>,
        admit: impl FnOnce(usize, &PacketShape) -> Result<(), Error>,
    ) -> Result<PacketShape, PacketError> {
        let shape = self.decode_whole(packet, interleaved, admit)?;
        self.presented.cut(interleaved, shape.channels);
        Ok(shape)
    }

    fn decode_whole(
        &mut self,
        packet: &Packet,
        interleaved: &mut Vec<f32>,
        admit: impl FnOnce(usize, &PacketShape) -> Result<(), Error>,
    ) -> Result<PacketShape, PacketError> {
        match &mut self.decoder {
            TrackDecoder::Opus(decoder) => {
                let shape = PacketShape { channels: decoder.channels(), sample_rate: opus::SAMPLE_RATE };
                let trim_end = usize::try_from(packet.trim_end.get()).unwrap_or(usize::MAX);
                decoder.decode(packet, trim_end, interleaved).map_err(|_| PacketError::Damaged)?;
                admit(interleaved.len() / shape.channels, &shape).map_err(PacketError::Refused)?;
                Ok(shape)
            }
            TrackDecoder::Symphonia(decoder) => {
                interleaved.clear();
                let buffer = match decoder.decode(packet) {
                    Ok(buffer) => buffer,
                    Err(SymphoniaError::Unsupported(what)) => {
                        return Err(PacketError::Refused(Error::unsupported(what)));
                    }
                    Err(_) => return Err(PacketError::Damaged),
                };
                let shape = PacketShape { channels: buffer.num_planes(), sample_rate: buffer.spec().rate() };
                if buffer.frames() > 0 {
                    admit(buffer.frames(), &shape).map_err(PacketError::Refused)?;
                    buffer.copy_to_vec_interleaved(interleaved);
                }
                Ok(shape)
            }
        }
    }

    /// Goes on with the next of several joined files, which ends at `file_end`. Without a tag it may be no file but the
    /// rest of one whose tag understates it: then the decoder keeps what its next frames refer to.
    pub(super) fn go_on(&mut self, next: AudioTrack, file_end: FileEnd) {
        let is_alike = |a: &AudioCodecParameters, b: &AudioCodecParameters| {
            (a.codec, a.sample_rate, &a.channels) == (b.codec, b.sample_rate, &b.channels)
        };
        if file_end == FileEnd::Unknown && is_alike(&self.params, &next.params) {
            self.stated_secs = next.stated_secs;
        } else {
            *self = next;
        }
    }

    /// A fresh decoder, after a panic left the old one in an unknown state.
    pub(super) fn reopen(&mut self) -> Result<(), Error> {
        self.decoder = TrackDecoder::new(&self.params)?;
        Ok(())
    }
}

impl TrackDecoder {
    fn new(params: &AudioCodecParameters) -> Result<Self, Error> {
        if params.codec == codec_ids::CODEC_ID_OPUS {
            let header = params.extra_data.as_deref().unwrap_or(&[]);
            let head = OpusHead::parse(header)?;
            return Ok(TrackDecoder::Opus(Box::new(OpusDecoder::new(head)?)));
        }
        if get_codecs().get_audio_decoder(params.codec).is_none() {
            return Err(Error::unsupported(format!("codec {}", codec_name(params))));
        }
        let decoder = guard(|| get_codecs().make_audio_decoder(params, &AudioDecoderOptions::default()))?;
        decoder.map(TrackDecoder::Symphonia).map_err(|error| match error {
            SymphoniaError::Unsupported(what) => Error::unsupported(what),
            error => Error::undecodable(error.to_string()),
        })
    }
}

fn stated_secs(track: &Track, params: &AudioCodecParameters) -> Option<f64> {
    // Frame counts leave encoder delay and padding out, so they come first.
    if let (Some(n_frames), Some(rate)) = (track.num_frames, params.sample_rate)
        && n_frames > 0
        && rate > 0
    {
        return Some(n_frames as f64 / f64::from(rate));
    }
    let time_base = track.time_base?;
    let ticks = track.duration.filter(|duration| duration.get() > 0)?;
    Some(ticks.get() as f64 * f64::from(time_base.numer.get()) / f64::from(time_base.denom.get()))
}

/// Opus is left out: its decoder removes the delay itself, whether or not the demuxer has counted it.
fn counts_frames(track: &Track, params: &AudioCodecParameters) -> bool {
    let (Some(time_base), Some(rate)) = (track.time_base, params.sample_rate) else { return false };
    params.codec != codec_ids::CODEC_ID_OPUS && time_base.numer.get() == 1 && time_base.denom.get() == rate
}

fn codec_name(params: &AudioCodecParameters) -> String {
    const OTHERS: [(AudioCodecId, &str); 14] = [
        (codec_ids::CODEC_ID_OPUS, "opus"),
        (codec_ids::CODEC_ID_SPEEX, "speex"),
        (codec_ids::CODEC_ID_MUSEPACK, "musepack"),
        (codec_ids::CODEC_ID_AC3, "ac3"),
        (codec_ids::CODEC_ID_EAC3, "eac3"),
        (codec_ids::CODEC_ID_AC4, "ac4"),
        (codec_ids::CODEC_ID_DCA, "dts"),
        (codec_ids::CODEC_ID_WMA, "wma"),
        (codec_ids::CODEC_ID_WAVPACK, "wavpack"),
        (codec_ids::CODEC_ID_MONKEYS_AUDIO, "ape"),
        (codec_ids::CODEC_ID_TTA, "tta"),
        (codec_ids::CODEC_ID_TRUEHD, "truehd"),
        (codec_ids::CODEC_ID_ADPCM_G722, "g722"),
        (codec_ids::CODEC_ID_ADPCM_G726, "g726"),
    ];
    if let Some(registered) = get_codecs().get_audio_decoder(params.codec) {
        return registered.codec.info.short_name.to_owned();
    }
    OTHERS
        .iter()
        .find(|(id, _)| *id == params.codec)
        .map_or_else(|| format!("unknown ({})", params.codec), |(_, name)| (*name).to_owned())
}

/// Whether the stream carries spectral band replication, which the AAC decoder ignores.
fn is_he_aac(params: &AudioCodecParameters) -> bool {
    use codec_ids::profiles::{CODEC_PROFILE_AAC_HE, CODEC_PROFILE_AAC_HE_V2};
    if params.codec != codec_ids::CODEC_ID_AAC {
        return false;
    }
    if matches!(params.profile, Some(CODEC_PROFILE_AAC_HE | CODEC_PROFILE_AAC_HE_V2)) {
        return true;
    }
    let Some(config) = params.extra_data.as_deref() else { return false };
    // AudioSpecificConfig (ISO 14496-3, 1.6.2.1): object types 5 (SBR) and 29 (PS) say so first thing; backward
    // compatible files append the sync word 0x2b7 and object type 5 after the core's configuration.
    let object_type = config.first().map_or(0, |byte| byte >> 3);
    let appended = (0..config.len().saturating_sub(2) * 8).any(|bit| {
        let window =
            config.iter().skip(bit / 8).take(4).fold(0u64, |bits, byte| (bits << 8) | u64::from(*byte))
                << (8 * 4_usize.saturating_sub(config.len() - bit / 8));
        // The sync word (11 bits), the object type (5 bits), and the flag that it is really there.
        (window >> (15 - bit % 8)) & 0x1_ffff == (0x2b7 << 6) | (5 << 1) | 1
    });
    object_type == 5 || object_type == 29 || appended
}
