//! The audio track of a container and the decoder for it.

use symphonia::core::codecs::CodecParameters;
use symphonia::core::codecs::audio::well_known as codec_ids;
use symphonia::core::codecs::audio::{AudioCodecId, AudioCodecParameters, AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error as SymphoniaError;
use symphonia::core::formats::Track;
use symphonia::core::packet::Packet;
use symphonia::default::get_codecs;

use super::guard::guard;
use super::opus::{self, OpusDecoder, OpusHead};
use crate::{Error, Limits};

/// The track being decoded.
pub(super) struct AudioTrack {
    pub(super) id: u32,
    pub(super) codec: String,
    pub(super) is_he_aac: bool,
    /// What the container says about its length, seconds.
    pub(super) stated_secs: Option<f64>,
    params: AudioCodecParameters,
    decoder: TrackDecoder,
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
        let stated_secs = stated_secs(track, params);
        let decoder = TrackDecoder::new(params)?;
        Ok(AudioTrack {
            id: track.id,
            codec: codec_name(params),
            is_he_aac: is_he_aac(params),
            stated_secs,
            params: params.clone(),
            decoder,
        })
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
            config.iter().skip(bit / 8).take(3).fold(0u32, |bits, byte| bits << 8 | u32::from(*byte));
        (window >> (8 - bit % 8)) & 0xffff == 0x2b7 << 5 | 5
    });
    object_type == 5 || object_type == 29 || appended
}
