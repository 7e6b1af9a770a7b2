//! Small files that claim, or unpack to, much more than they hold.

/// 16-bit PCM whose header says what it is told to.
pub fn wav(channels: u16, sample_rate: u32, data_bytes: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = audio::encode::wav_header(sample_rate.max(1), Some(0)).unwrap().to_vec();
    bytes[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    bytes[22..24].copy_from_slice(&channels.to_le_bytes());
    bytes[24..28].copy_from_slice(&sample_rate.to_le_bytes());
    bytes[28..32].copy_from_slice(&sample_rate.wrapping_mul(2 * u32::from(channels)).to_le_bytes());
    bytes[32..34].copy_from_slice(&(2 * channels).to_le_bytes());
    bytes[40..44].copy_from_slice(&data_bytes.to_le_bytes());
    bytes.extend(body);
    bytes
}

/// Constant frames of 65535 samples per channel, about 11 bytes each and 3 for each channel.
pub fn flac_silence(sample_rate: u32, channels: u8, secs: usize, states_length: bool) -> Vec<u8> {
    const BLOCK: usize = 65_535;
    let n_samples = secs * sample_rate as usize;
    let stated = if states_length { n_samples as u64 } else { 0 };
    let mut bytes = b"fLaC\x80\x00\x00\x22\xff\xff\xff\xff\x00\x00\x00\x00\x00\x00".to_vec();
    // 20 bits rate, 3 bits channels - 1, 5 bits width - 1, 36 bits length.
    let shape = (u64::from(sample_rate) << 44) | (u64::from(channels - 1) << 41) | (15 << 36);
    bytes.extend((shape | stated).to_be_bytes());
    bytes.extend([0; 16]);
    for number in 0..n_samples / BLOCK {
        // Fixed block size, 16 bits of block size - 1 to follow, the rate as above, independent channels, 16 bits.
        let mut frame = vec![0xff, 0xf8, 0x70, (channels - 1) << 4 | 0x08];
        frame.extend(char::from_u32(u32::try_from(number).unwrap()).unwrap().to_string().into_bytes());
        frame.extend((BLOCK as u16 - 1).to_be_bytes());
        frame.push(crc(&frame, 8, 0x07) as u8);
        frame.extend([0x00; 3].repeat(channels.into()));
        let check = crc(&frame, 16, 0x8005) as u16;
        frame.extend(check.to_be_bytes());
        bytes.extend(frame);
    }
    bytes
}

/// The check sums of FLAC and Ogg.
pub fn crc(bytes: &[u8], width: u32, polynomial: u32) -> u32 {
    let top = 1_u32 << (width - 1);
    let mask = if width == 32 { u32::MAX } else { (1 << width) - 1 };
    bytes.iter().fold(0, |sum, byte| {
        (0..8).fold(sum ^ (u32::from(*byte) << (width - 8)), |sum, _| {
            if sum & top == 0 { (sum << 1) & mask } else { ((sum << 1) ^ polynomial) & mask }
        })
    })
}

/// MPEG 2.5 layer 3 at 8 kHz, 8 kbit/s, mono: 576 samples in 72 bytes, all zero after the header.
pub fn mp3_silence(secs: usize) -> Vec<u8> {
    let mut frame = vec![0xff, 0xe3, 0x18, 0xc0];
    frame.resize(72, 0);
    frame.repeat(secs * 8_000 / 576)
}

/// Ogg pages of 255 packets, each two bytes that stand for 120 ms.
pub fn opus_silence(secs: usize) -> Vec<u8> {
    let page = |flags: u8, granule: u64, sequence: u32, packets: &[&[u8]]| {
        let mut page = b"OggS\x00".to_vec();
        page.push(flags);
        page.extend(granule.to_le_bytes());
        page.extend(7_u32.to_le_bytes());
        page.extend(sequence.to_le_bytes());
        page.extend([0; 4]);
        page.push(packets.len() as u8);
        page.extend(packets.iter().map(|packet| packet.len() as u8));
        packets.iter().for_each(|packet| page.extend(*packet));
        let check = crc(&page, 32, 0x04c1_1db7);
        page[22..26].copy_from_slice(&check.to_le_bytes());
        page
    };
    let mut bytes = page(2, 0, 0, &[b"OpusHead\x01\x01\x38\x01\x80\x3e\x00\x00\x00\x00\x00"]);
    bytes.extend(page(0, 0, 1, &[b"OpusTags\x00\x00\x00\x00\x00\x00\x00\x00"]));
    // Two empty frames of 60 ms, SILK narrow band: discontinuous transmission.
    let packets = [&[0x18 | 3, 2][..]; 255];
    for number in 0..secs * 1_000 / 120 / 255 {
        let granule = (number as u64 + 1) * 255 * 5_760;
        bytes.extend(page(0, granule, number as u32 + 2, &packets));
    }
    bytes
}
