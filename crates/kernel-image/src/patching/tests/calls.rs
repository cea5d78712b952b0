// SPDX-License-Identifier: Apache-2.0

use super::bytes;
use crate::patching::instruction::branch;
use crate::patching::{CallDepth, Pieces, calls};

const FUNCTION: u64 = 0x2010;

/// `sarq $5, %gs:0x7000` relative to the instruction pointer, as in 6.12.
fn depth() -> CallDepth {
    CallDepth {
        template: vec![0x65, 0x48, 0xc1, 0x3d, 0, 0, 0x70, 0, 5],
        template_address: 0x9000,
        text: std::iter::once(0x1000..0x3000).collect(),
        ..CallDepth::default()
    }
}

fn kernel(padding: u8) -> Pieces {
    let mut code = Pieces::new();
    code.add(0x1000, branch(0xe8, 0x1000, FUNCTION).to_vec());
    code.add(FUNCTION - 16, vec![padding; 32]);
    code
}

/// `patch_call` and `patch_dest`, arch/x86/kernel/callthunks.c, 6.12.
#[test]
fn a_call_leads_to_the_padding_which_counts() {
    let mut code = kernel(0x90);
    assert_eq!(calls::apply(&mut code, [0x1000], &depth(), 0x1000..0x3000).places, 0);
    assert_eq!(bytes(&code, 0x1000, 5), branch(0xe8, 0x1000, FUNCTION - 9));
    // Moved down by 0x9000 - (0x2010 - 9).
    let counting = [0x65, 0x48, 0xc1, 0x3d, 0xf9, 0x6f, 0x70, 0, 5];
    assert_eq!(bytes(&code, FUNCTION - 9, 9), counting);
    // A second call finds the padding filled.
    code.add(0x1800, branch(0xe8, 0x1800, FUNCTION).to_vec());
    assert_eq!(calls::apply(&mut code, [0x1800], &depth(), 0x1000..0x3000).places, 0);
    assert_eq!(bytes(&code, 0x1800, 5), branch(0xe8, 0x1800, FUNCTION - 9));
}

#[test]
fn a_function_without_padding_or_that_is_left_out_is_called_as_before() {
    let plain = branch(0xe8, 0x1000, FUNCTION);
    let mut code = kernel(0xcc);
    let _ = calls::apply(&mut code, [0x1000], &depth(), 0x1000..0x3000);
    assert_eq!(bytes(&code, 0x1000, 5), plain);
    let mut code = kernel(0x90);
    let left_out = std::iter::once(FUNCTION..FUNCTION + 1).collect();
    let skipped = CallDepth { skipped: left_out, ..depth() };
    let _ = calls::apply(&mut code, [0x1000], &skipped, 0x1000..0x3000);
    assert_eq!(bytes(&code, 0x1000, 5), plain);
    // Init code is not patched.
    let _ = calls::apply(&mut code, [0x1000], &depth(), 0x1001..0x3000);
    assert_eq!(bytes(&code, 0x1000, 5), plain);
}
