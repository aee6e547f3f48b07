use super::*;

fn token(number: u64) -> Token {
    Token::new(number).unwrap()
}

fn parse(bytes: &[u8]) -> Option<GatePage> {
    let mut whole = [0; 3 * SECTOR + 1];
    whole[..bytes.len()].copy_from_slice(bytes);
    GatePage::parse(&whole, bytes.len())
}

/// Of bytes that are a page.
fn highest(bytes: &[u8]) -> Option<Token> {
    parse(bytes).expect("a page").highest()
}

/// The bytes of a file that was entered with these tokens in turn.
fn entered(tokens: &[u64]) -> Vec<u8> {
    let file = tempfile::tempfile().unwrap();
    for number in tokens {
        GatePage::of(&file).unwrap().write(token(*number), &file).unwrap();
    }
    let mut bytes = vec![0; 3 * SECTOR];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

#[test]
fn a_page_says_the_last_token_written() {
    assert_eq!(highest(b""), None);
    for tokens in [&[1][..], &[1, 2], &[1, 2, 3], &[1, 5, 6, Token::MAX.get()]] {
        assert_eq!(highest(&entered(tokens)), tokens.last().map(|last| token(*last)));
    }
}

/// Power fails while a sector is written: it is new, old, half, or zeros.
#[test]
fn a_write_cut_short_leaves_the_token_before_it_or_its_own() {
    for count in 2..6 {
        let tokens: Vec<u64> = (1..=count).collect();
        let (old, new) = (entered(&tokens[..tokens.len() - 1]), entered(&tokens));
        let mut touched = (0..old.len()).filter(|at| old[*at] != new[*at]);
        let sector = touched.next_back().unwrap() / SECTOR;
        assert!(sector > 0, "the heading stays");
        for cut in 0..=SECTOR {
            let mut torn = old.clone();
            let range = sector * SECTOR..sector * SECTOR + cut;
            torn[range.clone()].copy_from_slice(&new[range]);
            let said = highest(&torn).unwrap();
            assert!([count - 1, count].map(token).contains(&said), "{said} at {cut}");
        }
        let mut zeros = old.clone();
        zeros[sector * SECTOR..(sector + 1) * SECTOR].fill(0);
        assert_eq!(highest(&zeros), Some(token(count - 1)));
    }
}

/// Its maker's one write came to the disk in parts, or not at all.
#[test]
fn a_page_half_made_is_made_again() {
    let made = entered(&[7]);
    for parts in 0..8 {
        let mut bytes = made.clone();
        for sector in (0..3).filter(|sector| parts & (1 << sector) == 0) {
            bytes[sector * SECTOR..(sector + 1) * SECTOR].fill(0);
        }
        for length in [bytes.len(), if parts == 0 { 0 } else { bytes.len() }] {
            let page = parse(&bytes[..length]).expect("it let no caller in");
            let file = tempfile::tempfile().unwrap();
            file.write_all_at(&bytes[..length], 0).unwrap();
            page.write(token(9), &file).unwrap();
            let again = GatePage::of(&file).unwrap();
            assert!(again.is_whole);
            assert_eq!(again.highest(), Some(token(9)));
        }
    }
}

#[test]
fn what_no_gate_wrote_is_no_page() {
    let good = entered(&[1, 2]);
    let mut heading = good.clone();
    heading[20] ^= 1;
    assert!(parse(&heading).is_none());
    let mut both = good.clone();
    both[SECTOR + 10] = b'x';
    both[2 * SECTOR + 10] = b'x';
    assert!(parse(&both).is_none());
    assert!(parse(&[&good[..], b"\n"].concat()).is_none());
    let too_large = line(&format!("token {0} {0}", (1_u64 << 63)));
    assert_eq!(token_of(&too_large), None);
    let differing = line(&format!("token {:020} {:020}", 5, 6));
    assert_eq!(token_of(&differing), None);
}
