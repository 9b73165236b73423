import { type AddressInfo, createServer } from "node:net"

/** A port that was free a moment ago: another may take it before its user gets to it. */
export const freePort = (): Promise<number> => probe(0)

// A node of a cluster listens on a second port, this far above.
const busOffset = 10_000

/** A port that was free a moment ago together with the one for the bus of a cluster. */
export const freeClusterPort = async (): Promise<number> => {
  for (;;) {
    // Below those that systems give to whoever connects to somewhere.
    const port = 11_000 + Math.floor(Math.random() * 11_000)
    try {
      await probe(port + busOffset)
      return await probe(port)
    } catch {
      // Another one, then.
    }
  }
}

const probe = (wanted: number): Promise<number> =>
  new Promise((resolve, reject) => {
    const server = createServer().once("error", reject).listen(wanted, "127.0.0.1", () => {
      const { port } = server.address() as AddressInfo
      server.close(() => resolve(port))
    })
  })
