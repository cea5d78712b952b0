// SPDX-License-Identifier: Apache-2.0
//! Machine code in words: whole instructions, named targets, where a change leads.

use std::fmt::Write;

use iced_x86::{Code, Decoder, DecoderOptions, FastFormatter, FlowControl, Instruction, OpKind};
use kernel_image::Symbols;

/// The longest instruction of x86.
pub const LONGEST_INSTRUCTION: usize = 15;

/// One instruction as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its address.
    pub address: u64,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The instruction in Intel syntax, targets by name.
    pub text: String,
}

impl Line {
    /// The address after it.
    pub fn end(&self) -> u64 {
        self.address + self.bytes.len() as u64
    }
}

/// Bytes in hexadecimal, with spaces.
pub fn hexadecimal(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 3);
    for (index, byte) in bytes.iter().enumerate() {
        let space = if index == 0 { "" } else { " " };
        // Writing to a string cannot fail.
        let _ = write!(text, "{space}{byte:02x}");
    }
    text
}

/// An address as `symbol+0x12`, or in hexadecimal where there is none. `text` is the range in which
/// symbols are meaningful: what lies outside is not code of the kernel's own.
pub fn name(symbols: &Symbols, text: (u64, u64), address: u64) -> String {
    if !(text.0..text.1).contains(&address) {
        return match symbols.containing(address) {
            // BPF programs and trampolines are listed too, far above the text.
            Some((symbol, 0)) if address > text.1 => format!("{} ({address:#x})", symbol.name),
            _ => format!("{address:#x}, outside any known text"),
        };
    }
    match symbols.containing(address) {
        Some((symbol, 0)) => symbol.name.to_owned(),
        Some((symbol, offset)) => format!("{}+{offset:#x}", symbol.name),
        None => format!("{address:#x}"),
    }
}

/// Decodes all of `bytes`. Bytes that are no instruction become lines of one byte.
pub fn disassemble(bytes: &[u8], address: u64, symbols: &Symbols, text: (u64, u64)) -> Vec<Line> {
    let mut decoder = Decoder::with_ip(64, bytes, address, DecoderOptions::NONE);
    let mut formatter = FastFormatter::new();
    let options = formatter.options_mut();
    options.set_use_hex_prefix(true);
    options.set_uppercase_hex(false);
    options.set_space_after_operand_separator(true);
    options.set_rip_relative_addresses(false);
    let mut lines = Vec::new();
    let mut instruction = Instruction::default();
    while decoder.can_decode() {
        let start = decoder.position();
        decoder.decode_out(&mut instruction);
        if instruction.is_invalid() {
            let byte = bytes.get(start).copied().unwrap_or_default();
            let address = address + start as u64;
            lines.push(Line { address, bytes: vec![byte], text: format!("(byte {byte:#04x})") });
            // Its bytes may begin an instruction one byte later.
            if decoder.set_position(start + 1).is_err() {
                break;
            }
            decoder.set_ip(address + 1);
            continue;
        }
        let mut rendered = String::new();
        formatter.format(&instruction, &mut rendered);
        if let Some(target) = near_target(&instruction) {
            let mnemonic = rendered.split(' ').next().unwrap_or_default().to_owned();
            rendered = format!("{mnemonic} {}", name(symbols, text, target));
        }
        let length = instruction.len();
        let taken = bytes.get(start..start + length).unwrap_or_default().to_vec();
        lines.push(Line { address: instruction.ip(), bytes: taken, text: rendered });
    }
    lines
}

/// The address and length of each instruction from `address` on, without their text.
pub fn boundaries(bytes: &[u8], address: u64) -> Vec<(u64, u8)> {
    let mut decoder = Decoder::with_ip(64, bytes, address, DecoderOptions::NONE);
    let mut instruction = Instruction::default();
    let mut found = Vec::new();
    while decoder.can_decode() {
        let start = decoder.position();
        decoder.decode_out(&mut instruction);
        let at = address + start as u64;
        if instruction.is_invalid() {
            found.push((at, 1));
            if decoder.set_position(start + 1).is_err() {
                break;
            }
            decoder.set_ip(at + 1);
        } else {
            found.push((at, instruction.len() as u8));
        }
    }
    found
}

/// Lines in one line: bytes, then what they mean.
pub fn render(lines: &[Line]) -> String {
    let lines: Vec<String> =
        lines.iter().map(|line| format!("{}  {}", hexadecimal(&line.bytes), line.text)).collect();
    lines.join("; ")
}

/// How code leaves the path it is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// A direct jump.
    Jump(u64),
    /// A direct conditional jump.
    Branch(u64),
    /// A direct call.
    Call(u64),
    /// An indirect jump or call to a constant that was loaded just before, or a return to one that
    /// was pushed.
    Computed(u64),
    /// A jump or call whose target does not show.
    Indirect,
    /// A return.
    Return,
    /// An int3.
    Breakpoint,
}

impl Exit {
    /// Where it leads, if that shows.
    pub fn target(self) -> Option<u64> {
        match self {
            Self::Jump(to) | Self::Branch(to) | Self::Call(to) | Self::Computed(to) => Some(to),
            Self::Indirect | Self::Return | Self::Breakpoint => None,
        }
    }
}

/// The first exit in `bytes` at `address`, and the address of the instruction that takes it.
pub fn first_exit(bytes: &[u8], address: u64) -> Option<(u64, Exit)> {
    let mut constant = None;
    let decoder = Decoder::with_ip(64, bytes, address, DecoderOptions::NONE);
    for instruction in decoder {
        if instruction.is_invalid() {
            return None;
        }
        let exit = match instruction.flow_control() {
            FlowControl::Next => {
                constant = loaded_constant(&instruction).or(constant);
                continue;
            }
            FlowControl::UnconditionalBranch => near_target(&instruction).map(Exit::Jump),
            FlowControl::ConditionalBranch => near_target(&instruction).map(Exit::Branch),
            FlowControl::Call => near_target(&instruction).map(Exit::Call),
            FlowControl::IndirectBranch | FlowControl::IndirectCall => {
                Some(constant.map_or(Exit::Indirect, Exit::Computed))
            }
            FlowControl::Return => {
                // `push address; ret` is a jump, `mov eax, 1; ret` is not.
                let pushed = constant.filter(|to| *to > u64::from(u32::MAX));
                Some(pushed.map_or(Exit::Return, Exit::Computed))
            }
            FlowControl::Interrupt if instruction.code() == Code::Int3 => Some(Exit::Breakpoint),
            _ => None,
        };
        return exit.map(|exit| (instruction.ip(), exit));
    }
    None
}

fn near_target(instruction: &Instruction) -> Option<u64> {
    (instruction.op_count() > 0 && instruction.op0_kind() == OpKind::NearBranch64)
        .then(|| instruction.near_branch64())
}

fn loaded_constant(instruction: &Instruction) -> Option<u64> {
    match instruction.code() {
        Code::Mov_r64_imm64 => Some(instruction.immediate64()),
        // Sign-extended: how the kernel's text is addressed.
        Code::Mov_rm64_imm32 | Code::Pushq_imm32 => {
            Some(instruction.immediate32to64().cast_unsigned())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: (u64, u64) = (0xffff_ffff_8100_0000, 0xffff_ffff_8100_1000);

    fn symbols() -> Symbols {
        Symbols::from_iter([(TEXT.0, b'T', "_stext"), (TEXT.0 + 0x40, b'T', "wake")])
    }

    #[test]
    fn a_call_is_shown_with_the_name_of_what_it_calls() {
        let lines = disassemble(&[0xe8, 0x3b, 0, 0, 0, 0x90], TEXT.0, &symbols(), TEXT);
        assert_eq!(render(&lines), "e8 3b 00 00 00  call wake; 90  nop");
    }

    #[test]
    fn a_target_outside_the_text_is_said_to_be_outside() {
        let lines = disassemble(&[0xe9, 0, 0, 0, 0x10], TEXT.0, &symbols(), TEXT);
        let shown = &lines[0].text;
        assert_eq!(shown, "jmp 0xffffffff91000005, outside any known text");
    }

    #[test]
    fn bytes_that_are_no_instruction_do_not_end_the_listing() {
        let lines = disassemble(&[0x06, 0xc3], TEXT.0, &symbols(), TEXT);
        assert_eq!(lines.len(), 2);
        assert_eq!((lines[1].address, lines[1].text.as_str()), (TEXT.0 + 1, "ret"));
    }

    #[test]
    fn the_usual_ways_to_leave_a_function_are_followed() {
        let to = 0xffff_ffff_c000_1234_u64;
        let mut moved = vec![0x48, 0xb8];
        moved.extend(to.to_le_bytes());
        moved.extend([0xff, 0xe0]);
        assert_eq!(first_exit(&moved, TEXT.0).unwrap().1, Exit::Computed(to));
        let mut pushed = vec![0x68];
        pushed.extend((to as u32).to_le_bytes());
        pushed.push(0xc3);
        assert_eq!(first_exit(&pushed, TEXT.0).unwrap().1, Exit::Computed(to));
        assert_eq!(first_exit(&[0x31, 0xc0, 0xc3], TEXT.0), Some((TEXT.0 + 2, Exit::Return)));
        assert_eq!(first_exit(&[0xb8, 1, 0, 0, 0, 0xc3], TEXT.0).unwrap().1, Exit::Return);
        assert_eq!(first_exit(&[0xcc], TEXT.0), Some((TEXT.0, Exit::Breakpoint)));
        assert_eq!(first_exit(&[0xff, 0xe0], TEXT.0).unwrap().1, Exit::Indirect);
    }
}
