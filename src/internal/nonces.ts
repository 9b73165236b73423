/** Names that nobody else gives: no two processes draw the same 128 bits, no process counts a number twice. */
export const makeNonces = (): () => string => {
  const bytes = crypto.getRandomValues(new Uint8Array(16))
  const process = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("")
  let count = 0
  return () => `${process}.${(count++).toString(36)}`
}
