// SPDX-License-Identifier: Apache-2.0
//! Requests, as the kernel writes them into a buffer of ours. Pure.

/// Bounds of what is served.
pub(crate) struct Limits;

impl Limits {
    /// `FUSE_MIN_READ_BUFFER`: no request is longer as long as nobody can write to the file system.
    pub(crate) const REQUEST: usize = 8192;
    /// Longest name that a request may carry, in bytes (`XATTR_NAME_MAX` and `NAME_MAX` are 255).
    pub(crate) const NAME: usize = 255;
}

/// What is wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FuseError {
    /// Not even a header, or a length that is not that of what was read.
    #[error("a request of {read} bytes says that it has {said}")]
    Length {
        /// How many bytes there were.
        read: usize,
        /// Its own length, 0 if there is none.
        said: usize,
    },
    /// Its arguments end before they are complete, or a name does not end or is too long.
    #[error("the arguments of request {unique}, operation {opcode}, are not complete")]
    Arguments {
        /// What it is answered by.
        unique: u64,
        /// Its operation.
        opcode: u32,
    },
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FuseOperation<'bytes> {
    /// The first request: which protocol the kernel speaks.
    Init {
        /// Version.
        major: u32,
        /// And its minor part.
        minor: u32,
    },
    /// A name in a directory.
    Lookup {
        /// Without its final zero.
        name: &'bytes [u8],
    },
    /// Attributes.
    GetAttributes,
    /// To open a file or a directory.
    Open,
    /// Bytes of a file.
    Read {
        /// From where.
        offset: u64,
        /// How many at most.
        size: u32,
    },
    /// The value of an extended attribute, or its size.
    GetExtended {
        /// Room for the value; 0 asks for the size alone.
        size: u32,
        /// Without its final zero.
        name: &'bytes [u8],
    },
    /// Another request is not waited for any more, or a signal has come meanwhile.
    Interrupt {
        /// Which.
        request: u64,
    },
    /// Is done with a file: answered, and nothing to do.
    Release,
    /// Takes no answer.
    Forget,
    /// What such a file system does not have.
    Other,
}

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FuseRequest<'bytes> {
    /// What it is answered by; 0 where no answer is taken.
    pub unique: u64,
    /// Which file.
    pub node: u64,
    /// The thread that waits, in the pid namespace of whoever mounted; 0 for none.
    pub thread: u32,
    /// What for.
    pub operation: FuseOperation<'bytes>,
}

/// `struct fuse_in_header`.
const HEADER: usize = 40;

impl<'bytes> FuseRequest<'bytes> {
    /// The one request that a read from /dev/fuse gave.
    ///
    /// # Errors
    /// When it is none. With [`FuseError::Arguments`] somebody waits for an answer all the same.
    pub fn parse(bytes: &'bytes [u8]) -> Result<Self, FuseError> {
        let said = u32_at(bytes, 0).map_or(0, |length| length as usize);
        let fault = FuseError::Length { read: bytes.len(), said };
        if said != bytes.len() || said < HEADER {
            return Err(fault);
        }
        let header = (u32_at(bytes, 4), u64_at(bytes, 8), u64_at(bytes, 16), u32_at(bytes, 32));
        let (Some(opcode), Some(unique), Some(node), Some(thread)) = header else {
            return Err(fault);
        };
        let body = bytes.get(HEADER..).unwrap_or_default();
        let operation = operation(opcode, body).ok_or(FuseError::Arguments { unique, opcode })?;
        Ok(Self { unique, node, thread, operation })
    }
}

/// What an operation is, by its number (`enum fuse_opcode`) and arguments; none if these are short.
fn operation(opcode: u32, body: &[u8]) -> Option<FuseOperation<'_>> {
    Some(match opcode {
        1 => FuseOperation::Lookup { name: name(body)? },
        // FORGET, BATCH_FORGET.
        2 | 42 => FuseOperation::Forget,
        3 => FuseOperation::GetAttributes,
        // OPEN, OPENDIR.
        14 | 27 => FuseOperation::Open,
        // struct fuse_read_in: handle, offset, size.
        15 => FuseOperation::Read { offset: u64_at(body, 8)?, size: u32_at(body, 16)? },
        // RELEASE, FLUSH, RELEASEDIR, DESTROY.
        18 | 25 | 29 | 38 => FuseOperation::Release,
        // struct fuse_getxattr_in: size, padding; then the name.
        22 => FuseOperation::GetExtended { size: u32_at(body, 0)?, name: name(body.get(8..)?)? },
        26 => FuseOperation::Init { major: u32_at(body, 0)?, minor: u32_at(body, 4)? },
        36 => FuseOperation::Interrupt { request: u64_at(body, 0)? },
        _ => FuseOperation::Other,
    })
}

/// A name that ends with a zero. What may follow it (extensions of the header) is not asked for.
fn name(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.iter().take(Limits::NAME + 1).position(|byte| *byte == 0)?;
    bytes.get(..end)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_ne_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().copied().map(u64::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(opcode: u32, body: &[u8]) -> Vec<u8> {
        let mut bytes = (40 + body.len() as u32).to_ne_bytes().to_vec();
        bytes.extend(opcode.to_ne_bytes());
        bytes.extend(7_u64.to_ne_bytes());
        bytes.extend(2_u64.to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend(1234_u32.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(body);
        bytes
    }

    #[test]
    fn a_request_for_an_attribute_tells_who_waits_and_how_much_room_there_is() {
        let mut body = 32_u32.to_ne_bytes().to_vec();
        body.extend([0; 4]);
        body.extend(b"user.verdict\0");
        let bytes = request(22, &body);
        let operation = FuseOperation::GetExtended { size: 32, name: b"user.verdict" };
        let expected = FuseRequest { unique: 7, node: 2, thread: 1234, operation };
        assert_eq!(FuseRequest::parse(&bytes), Ok(expected));
    }

    #[test]
    fn each_operation_that_is_cut_short_names_the_request_that_waits() {
        let long_enough: [(u32, Vec<u8>); 5] = [
            (1, b"anchor\0".to_vec()),
            (15, vec![0; 20]),
            (22, [&[0; 8][..], b"user.x\0"].concat()),
            (26, vec![0; 8]),
            (36, vec![0; 8]),
        ];
        for (opcode, body) in long_enough {
            assert!(FuseRequest::parse(&request(opcode, &body)).is_ok(), "{opcode}");
            for length in 0..body.len() {
                let cut = request(opcode, &body[..length]);
                let expected = Err(FuseError::Arguments { unique: 7, opcode });
                assert_eq!(FuseRequest::parse(&cut), expected, "{opcode}: {length} bytes");
            }
        }
    }

    #[test]
    fn a_length_that_is_not_that_of_the_request_is_refused() {
        let whole = request(3, &[0; 16]);
        assert!(FuseRequest::parse(&whole).is_ok());
        for length in 0..whole.len() {
            let expected =
                FuseError::Length { read: length, said: if length < 4 { 0 } else { 56 } };
            assert_eq!(FuseRequest::parse(&whole[..length]), Err(expected));
        }
    }

    #[test]
    fn a_name_that_is_too_long_is_refused() {
        let with = |length: usize| [vec![b'x'; length], vec![0]].concat();
        assert!(FuseRequest::parse(&request(1, &with(255))).is_ok());
        assert!(FuseRequest::parse(&request(1, &with(256))).is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_arguments_are_understood_or_refused_by_the_number_of_the_request(
            opcode in 0_u32..60,
            body in proptest::collection::vec(proptest::num::u8::ANY, 0..300),
        ) {
            let bytes = request(opcode, &body);
            match FuseRequest::parse(&bytes) {
                Ok(parsed) => {
                    assert_eq!(parsed.unique, 7);
                    if let FuseOperation::Lookup { name }
                    | FuseOperation::GetExtended { name, .. } = parsed.operation
                    {
                        assert!(name.len() < body.len() && !name.contains(&0));
                    }
                }
                Err(error) => assert_eq!(error, FuseError::Arguments { unique: 7, opcode }),
            }
        }
    }

    #[test]
    fn what_is_not_known_is_still_a_request() {
        let bytes = request(9999, &[]);
        let parsed = FuseRequest::parse(&bytes).unwrap();
        assert_eq!(parsed.operation, FuseOperation::Other);
    }
}
