/**
 * A digest of 64 bits that tells one schema from another: FNV-1a, the two halves
 * with different bases. Nobody gains by a collision, so it need not withstand one
 * made on purpose.
 */
export const digest = (text: string): string => {
  let a = 0x811c9dc5
  let b = 0x9747b28c
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i)
    a = Math.imul(a ^ unit, 0x01000193)
    b = Math.imul(b ^ (unit + i), 0x01000193)
  }
  return (a >>> 0).toString(16).padStart(8, "0") + (b >>> 0).toString(16).padStart(8, "0")
}
