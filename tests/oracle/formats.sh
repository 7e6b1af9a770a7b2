#!/bin/sh
# Makes the format fixtures of the audio crate: the same quarter second of sound in every container and codec.
# Needs ffmpeg with libmp3lame, libvorbis and libopus. Run from the repository root; the results are committed.
set -eu
out=tests/fixtures/audio
mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
run() { ffmpeg -nostdin -loglevel error -y -fflags +bitexact "$@"; }

# The source: a chirp from 200 to 3400 Hz with a little deterministic noise, faded in and out, 16 kHz mono, 0.25 s.
python3 - "$work/source.s16" <<'PY'
import math, struct, sys
rate, n = 16000, 4000
state, values = 1, []
for t in range(n):
    state = (1103515245 * state + 12345) % 2**31
    noise = state / 2**31 - 0.5
    secs = t / rate
    phase = 2 * math.pi * (200 * secs + (3400 - 200) / (2 * n / rate) * secs * secs)
    fade = min(1.0, t / 400, (n - 1 - t) / 400)
    values.append(round(32768 * fade * (0.4 * math.sin(phase) + 0.02 * noise)))
open(sys.argv[1], "wb").write(struct.pack(f"<{n}h", *values))
PY
source="-f s16le -ar 16000 -ac 1 -i $work/source.s16"
exact="-flags +bitexact -map_metadata -1"
cp "$work/source.s16" "$out/source.s16"

for codec in pcm_u8 pcm_s16le pcm_s24le pcm_s32le pcm_f32le pcm_f64le pcm_alaw pcm_mulaw adpcm_ima_wav adpcm_ms; do
    run $source -c:a $codec $exact "$out/$codec.wav"
done
# Stereo: left is the source, right is the source at half the amplitude.
run $source -filter_complex 'pan=stereo|c0=c0|c1=0.5*c0' -c:a pcm_s16le $exact "$out/stereo.wav"
run $source -c:a pcm_s16le -rf64 always $exact "$out/rf64.wav"
run $source -c:a flac $exact "$out/tone.flac"
run $source -filter_complex 'pan=stereo|c0=c0|c1=0.5*c0' -c:a flac $exact "$out/stereo.flac"
run $source -c:a flac $exact -f ogg "$out/flac.ogg"
run $source -c:a libmp3lame -b:a 48k $exact "$out/tone.mp3"
run $source -c:a libmp3lame -b:a 48k -write_xing 0 $exact "$out/bare.mp3"
run $source -c:a libvorbis -q:a 5 $exact "$out/vorbis.ogg"
run $source -c:a libopus -b:a 48k $exact "$out/tone.opus"
run $source -filter_complex 'pan=stereo|c0=c0|c1=0.5*c0' -c:a libopus -b:a 64k $exact "$out/stereo.opus"
run $source -c:a libopus -b:a 48k $exact "$out/opus.webm"
run $source -c:a libopus -b:a 48k $exact "$out/opus.mp4"
run $source -c:a libvorbis -q:a 5 $exact "$out/vorbis.webm"
run $source -c:a aac -b:a 64k $exact "$out/aac.m4a"
run $source -c:a aac -b:a 64k $exact "$out/tone.aac"
run $source -c:a alac $exact "$out/alac.m4a"
run $source -c:a pcm_s16be $exact "$out/tone.aiff"
run $source -c:a pcm_s16le $exact "$out/tone.caf"
run $source -c:a alac $exact "$out/alac.caf"
# Video first, audio second.
run -f lavfi -i color=black:s=16x16:r=10:d=0.25 $source -map 0:v -map 1:a -c:v mpeg4 -c:a aac -b:a 64k $exact "$out/video.mp4"
run -f lavfi -i color=black:s=16x16:r=10:d=0.25 $source -map 0:v -map 1:a -c:v mpeg4 -c:a libopus -b:a 48k $exact "$out/video.mkv"
# Two chained Ogg streams.
cat "$out/tone.opus" "$out/stereo.opus" > "$out/chained.opus"
cat "$out/vorbis.ogg" "$out/vorbis.ogg" > "$out/chained.ogg"
# What libopus makes of the Opus file.
run -c:a libopus -i "$out/tone.opus" -f s16le "$out/opus_reference.s16"
